//! A simple caller of the composer, with local files.

use std::collections::VecDeque;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

use snapdeck_qcow2::{
    ComposeError, ComposedImage, Composer, Estimate, Layout, MetadataWriter, Options, ReadRequest,
    TableBudget, TableReader, Tables,
};

pub(crate) fn read(file: &File, range: &Range<u64>) -> Vec<u8> {
    let mut bytes = vec![0; (range.end - range.start) as usize];
    file.read_exact_at(&mut bytes, range.start).unwrap();
    bytes
}

/// Reads the tables of an image with `read`.
pub(crate) fn tables(
    file_bytes: u64,
    mut read: impl FnMut(&Range<u64>) -> Vec<u8>,
) -> Result<Tables, ComposeError> {
    let mut reader = TableReader::new(file_bytes, &TableBudget::default());
    while !reader.pending_reads().is_empty() {
        let ranges = reader.pending_reads();
        assert!(ranges.iter().all(|range| range.end <= file_bytes));
        assert!(
            ranges
                .iter()
                .map(|range| range.end - range.start)
                .sum::<u64>()
                <= 4 << 20
        );
        let chunks: Vec<Vec<u8>> = ranges.iter().map(&mut read).collect();
        reader.feed(&chunks)?;
    }
    reader.finish()
}

pub(crate) fn tables_of(path: &Path) -> Result<Tables, ComposeError> {
    let file = File::open(path).unwrap();
    tables(file.metadata().unwrap().len(), |range| read(&file, range))
}

/// A composed image.
pub(crate) struct Composed {
    pub bytes: Vec<u8>,
    pub kept: Range<u64>,
    pub estimate: Estimate,
    pub read_bytes: u64,
    /// Of which the next image of the disk can be composed.
    pub image: ComposedImage,
}

pub(crate) struct Parameters<'a> {
    pub layout: Layout,
    pub zstd: bool,
    pub read_ahead: usize,
    /// Raw disk to read instead of the layers.
    pub disk: Option<&'a Path>,
    /// The image composed earlier whose bytes are kept, and its file.
    pub previous: Option<(&'a ComposedImage, &'a Path)>,
    /// Ranges of the topmost file that are unchanged since.
    pub unchanged: &'a [Range<u64>],
}

/// Composes a chain of files, the base first.
pub(crate) fn compose(
    chain: &[impl AsRef<Path>],
    parameters: &Parameters,
) -> Result<Composed, ComposeError> {
    let mut layers = Vec::new();
    for path in chain {
        layers.push(tables_of(path.as_ref())?);
    }
    let files: Vec<File> = chain.iter().map(|path| File::open(path).unwrap()).collect();
    let disk = parameters.disk.map(|path| File::open(path).unwrap());
    let base = layers.remove(0).with_zero_ranges(&zero_ranges(&files[0]));
    let options = Options {
        zstd_enabled: parameters.zstd,
    };
    let mut composer = match parameters.previous {
        Some((image, _)) => {
            Composer::on_previous(base, layers, image, parameters.unchanged, options)?
        }
        None => Composer::new(base, layers, parameters.layout, options)?,
    };
    let (kept, estimate) = (composer.kept_range(), composer.estimate());
    let kept_file = match parameters.previous {
        Some((_, path)) => &File::open(path).unwrap(),
        None => &files[0],
    };
    let mut bytes = read(
        kept_file,
        &(0..composer.tail_start().min(length(kept_file))),
    );
    bytes.resize(composer.tail_start() as usize, 0);
    let mut read_bytes = 0;
    let mut tail = bytes::BytesMut::new();
    let mut pending: VecDeque<ReadRequest> = VecDeque::new();
    loop {
        while pending.len() < parameters.read_ahead
            && let Some(next) = composer.next_read()
        {
            pending.push_back(next);
        }
        let Some(next) = pending.pop_front() else {
            break;
        };
        assert!(next.host_bytes() <= 4 << 20 && next.guest_bytes() <= 2 << 20);
        read_bytes += next.host_bytes();
        if let Some(disk) = &disk {
            let plain: Vec<u8> = next
                .guest_ranges()
                .iter()
                .flat_map(|range| read(disk, range))
                .collect();
            composer.push_guest(&next, &plain, &mut tail)?;
        } else {
            let stored = read(&files[next.layer()], &next.host_range());
            composer.push(&next, &stored, &mut tail)?;
        }
    }
    let metadata: MetadataWriter = finish(composer, &mut tail)?;
    bytes.extend_from_slice(&tail);
    assert_eq!(bytes.len() as u64, metadata.file_bytes());
    bytes[..metadata.header_cluster().len()].copy_from_slice(metadata.header_cluster());
    // It is stored between the two.
    let image = ComposedImage::from_bytes(&metadata.into_image()?.to_bytes())?;
    assert_eq!(image.file_bytes(), bytes.len() as u64);
    Ok(Composed {
        bytes,
        kept,
        estimate,
        read_bytes,
        image,
    })
}

pub(crate) fn finish(
    composer: Composer,
    tail: &mut bytes::BytesMut,
) -> Result<MetadataWriter, ComposeError> {
    let mut metadata = composer.finish(tail)?;
    while metadata.write(tail) {}
    Ok(metadata)
}

/// Returns the ranges of whole pages of a file that are zeros.
fn zero_ranges(file: &File) -> Vec<Range<u64>> {
    const PAGE: u64 = 4096;
    let mut ranges: Vec<Range<u64>> = Vec::new();
    for start in (0..length(file) / PAGE * PAGE).step_by(PAGE as usize) {
        let page = start..start + PAGE;
        if read(file, &page).iter().any(|byte| *byte != 0) {
            continue;
        }
        match ranges.last_mut() {
            Some(last) if last.end == start => last.end = page.end,
            _ => ranges.push(page),
        }
    }
    ranges
}

fn length(file: &File) -> u64 {
    file.metadata().unwrap().len()
}

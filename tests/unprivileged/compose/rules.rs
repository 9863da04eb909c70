//! One rule of composing per test.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use snapdeck_model::Compression;
use snapdeck_qcow2::{ComposeError, ComposedImage, Composer, Layout, Options, read_header};

use crate::compose::check::{
    assert_intact, assert_same, assert_same_for_imago, qemu_img, run, temp_dir, unchanged_ranges,
};
use crate::compose::driver::{Parameters, compose, tables_of};

const PLAIN: Parameters = Parameters {
    layout: Layout::Append,
    zstd: false,
    read_ahead: 4,
    disk: None,
    previous: None,
    unchanged: &[],
};

fn image(dir: &Path, name: &str, options: &str, size: &str, backing: Option<&Path>) -> PathBuf {
    let path = dir.join(name);
    let backing = backing.map_or(String::new(), |path| {
        format!("-b {} -F qcow2", path.display())
    });
    let options = match options {
        "" => String::new(),
        options => format!("-o {options}"),
    };
    qemu_img(&format!(
        "create -q -f qcow2 {options} {backing} {} {size}",
        path.display()
    ));
    path
}

fn run_qemu_io(path: &Path, commands: &[&str]) {
    let mut arguments = vec!["-f", "qcow2", "-d", "unmap"];
    for command in commands {
        arguments.extend(["-c", command]);
    }
    let path = path.display().to_string();
    arguments.push(&path);
    run("qemu-io", &arguments);
}

fn overwrite(path: &Path, at: u64, bytes: &[u8]) {
    let file = File::options().write(true).open(path).unwrap();
    file.write_all_at(bytes, at).unwrap();
}

/// Composes and checks an image; returns its path and length.
fn compose_and_check(dir: &Path, chain: &[PathBuf], parameters: &Parameters) -> (PathBuf, u64) {
    let composed = compose(chain, parameters).unwrap();
    let (path, raw) = (dir.join("composed.qcow2"), dir.join("expected.raw"));
    std::fs::write(&path, &composed.bytes).unwrap();
    let top = chain.last().unwrap().display();
    qemu_img(&format!("convert -f qcow2 -O raw {top} {}", raw.display()));
    assert_intact(&path);
    assert_same(&path, &raw);
    let size = read_header(&composed.bytes).unwrap().virtual_size;
    assert_same_for_imago(&path, &raw, size);
    (path, composed.bytes.len() as u64)
}

fn compose_error(chain: &[PathBuf]) -> ComposeError {
    compose(chain, &PLAIN).err().expect("an error")
}

#[test]
fn zeros_of_the_overlay_take_no_space() {
    let dir = temp_dir();
    let base = image(dir.path(), "base", "", "64M", None);
    run_qemu_io(&base, &["write -P 1 0 32M"]);
    let overlay = image(dir.path(), "overlay", "", "64M", Some(&base));
    run_qemu_io(&overlay, &["write -P 0 0 16M", "write -P 7 16M 1M"]);
    let base_bytes = base.metadata().unwrap().len();
    let chain = [base, overlay];
    let (_, length) = compose_and_check(dir.path(), &chain, &PLAIN);
    // 1 MiB of data, and one cluster each of L2, L1, refcount table and refcount block.
    assert_eq!(length - base_bytes, (1 << 20) + 4 * 65536);
    let estimate = estimate_of(&chain, Layout::Append);
    // All overwritten data, and the tables of the base except for the header, which is rewritten.
    assert_eq!(estimate.dead_bytes, (17 << 20) + 4 * 65536);
    assert_eq!(estimate.dead_data_bytes, (17 << 20) + 65536);
    assert!(estimate.dead_fraction() > 0.5);
    // Nothing was written to a new overlay: only tables of the base are replaced.
    let unused = image(dir.path(), "unused", "", "64M", Some(&chain[0]));
    let estimate = estimate_of(&[chain[0].clone(), unused], Layout::Append);
    assert_eq!(estimate.dead_data_bytes, 0);
    let compact = Parameters {
        layout: Layout::Compact,
        ..PLAIN
    };
    let (_, length) = compose_and_check(dir.path(), &chain, &compact);
    assert_eq!(length, (16 << 20) + 5 * 65536);
    assert_eq!(estimate_of(&chain, Layout::Compact).dead_bytes, 0);
}

/// The base has the clusters of a preallocated disk.
#[test]
fn known_zeros_of_the_base_are_not_read_by_a_compact_push() {
    let dir = temp_dir();
    let base = image(dir.path(), "base", "preallocation=metadata", "64M", None);
    run_qemu_io(&base, &["write -P 1 3M 1M"]);
    let overlay = image(dir.path(), "overlay", "", "64M", Some(&base));
    // One cluster is zeros of the base and a sector of the overlay.
    run_qemu_io(&overlay, &["write -P 2 8M 1M", "write -P 3 32M 512"]);
    let chain = [base, overlay];
    let compact = Parameters {
        layout: Layout::Compact,
        ..PLAIN
    };
    let composed = compose(&chain, &compact).unwrap();
    // A MiB of each, and a cluster.
    assert_eq!(composed.read_bytes, (2 << 20) + 65536);
    assert_eq!(composed.estimate.read_bytes, composed.read_bytes);
    let (_, length) = compose_and_check(dir.path(), &chain, &compact);
    assert_eq!(length, (2 << 20) + 6 * 65536);
    assert_eq!(length, composed.estimate.file_bytes);
    // The next image is composed on it: what the base has is still not read.
    let path = dir.path().join("composed.qcow2");
    let next = Parameters {
        previous: Some((&composed.image, &path)),
        ..PLAIN
    };
    let next = compose(&chain, &next).unwrap();
    assert_eq!(next.read_bytes, (1 << 20) + 65536);
}

/// One cluster of the overlay has entries in many L2 tables of the base.
#[test]
fn the_estimate_holds_for_an_overlay_with_larger_clusters() {
    let dir = temp_dir();
    let base = image(dir.path(), "base", "cluster_size=1k", "1M", None);
    let overlay = image(dir.path(), "overlay", "cluster_size=1M", "1M", Some(&base));
    run_qemu_io(&overlay, &["write -P 1 0 1M"]);
    let chain = [base, overlay];
    for layout in [Layout::Append, Layout::Compact] {
        let (_, length) = compose_and_check(dir.path(), &chain, &Parameters { layout, ..PLAIN });
        // All clusters have data, so the estimate is exact.
        assert_eq!(length, estimate_of(&chain, layout).file_bytes, "{layout:?}");
    }
}

fn estimate_of(chain: &[PathBuf; 2], layout: Layout) -> snapdeck_qcow2::Estimate {
    let [base, overlay] = chain;
    let (base, overlay) = (tables_of(base).unwrap(), tables_of(overlay).unwrap());
    Composer::new(base, vec![overlay], layout, Options::default())
        .unwrap()
        .estimate()
}

#[test]
fn contiguous_clusters_are_read_together() {
    let dir = temp_dir();
    let base = image(dir.path(), "base", "", "1G", None);
    let overlay = image(dir.path(), "overlay", "", "1G", Some(&base));
    // Scattered over the disk, contiguous in the file.
    let writes: Vec<String> = (0..64u64)
        .map(|at| format!("write -P 3 {}M 64k", (at * 37) % 64 * 16))
        .collect();
    run_qemu_io(
        &overlay,
        &writes.iter().map(String::as_str).collect::<Vec<_>>(),
    );
    let (base, overlay) = (tables_of(&base).unwrap(), tables_of(&overlay).unwrap());
    let mut composer =
        Composer::new(base, vec![overlay], Layout::Append, Options::default()).unwrap();
    let reads: Vec<_> = std::iter::from_fn(|| composer.next_read()).collect();
    let bytes: u64 = reads.iter().map(|read| read.host_bytes()).sum();
    assert_eq!(bytes, 64 * 65536);
    // L2 tables may be in between.
    assert!(reads.len() <= 4, "{} reads", reads.len());
    assert!(reads.iter().all(|read| read.layer() == 1));
}

#[test]
fn data_past_a_previous_end_is_not_visible() {
    let dir = temp_dir();
    let base = image(dir.path(), "base", "", "1M", None);
    run_qemu_io(&base, &["write -P 1 0 1M"]);
    // A shorter overlay below a longer one: zeros between the two ends, from the middle of a cluster on.
    let low = image(dir.path(), "low", "", "300000", Some(&base));
    let top = image(dir.path(), "top", "", "2M", Some(&low));
    let chain = [base.clone(), low.clone(), top];
    compose_and_check(dir.path(), &chain, &PLAIN);
    // The same when the composed image is enlarged.
    let (short, _) = compose_and_check(dir.path(), &[base, low], &PLAIN);
    let short_base = dir.path().join("short");
    std::fs::rename(&short, &short_base).unwrap();
    qemu_img(&format!("resize -q -f qcow2 {} 1M", short_base.display()));
    let raw = dir.path().join("whole.raw");
    std::fs::write(
        &raw,
        [vec![1; 300_032], vec![0; (1 << 20) - 300_032]].concat(),
    )
    .unwrap();
    assert_same(&short_base, &raw);
}

/// Clusters keep their place in the next image, whatever was trimmed or added around them.
#[test]
fn the_next_image_has_only_what_changed() {
    let dir = temp_dir();
    let base = image(dir.path(), "base", "", "64M", None);
    run_qemu_io(&base, &["write -P 1 0 32M"]);
    let overlay = image(dir.path(), "overlay", "", "64M", Some(&base));
    run_qemu_io(&overlay, &["write -P 2 16M 16M", "write -P 3 40M 8M"]);
    let chain = [base, overlay];
    let tables = 65536;
    let mut composed = compose(&chain, &PLAIN).unwrap();
    let rounds: [(&[&str], u64); 7] = [
        // L1 table, refcount table, refcount block.
        (&[], 3 * tables),
        (&["write -P 2 16M 4M", "write -P 3 44M 64k"], 3 * tables),
        // And the L2 table.
        (&["discard 17M 192k"], 4 * tables),
        (
            &["write -P 4 20M 1M", "discard 41M 64k"],
            4 * tables + (1 << 20),
        ),
        (&["write -P 0 21M 1M"], 4 * tables),
        // What the base has at the same place counts as changed.
        (
            &["write -P 5 1M 64k", "write -P 1 2M 64k"],
            4 * tables + 2 * 65536,
        ),
        (&["write -P 6 48M 64k"], 4 * tables + 65536),
    ];
    for (number, (commands, expected)) in rounds.into_iter().enumerate() {
        let previous = dir.path().join("previous.qcow2");
        std::fs::write(&previous, &composed.bytes).unwrap();
        let before = std::fs::read(&chain[1]).unwrap();
        if !commands.is_empty() {
            run_qemu_io(&chain[1], commands);
        }
        let parameters = Parameters {
            previous: Some((&composed.image, &previous)),
            ..PLAIN
        };
        let (_, length) = compose_and_check(dir.path(), &chain, &parameters);
        let next = compose(&chain, &parameters).unwrap();
        // What is not read because its blocks are unchanged makes no difference.
        let unchanged = unchanged_ranges(&before, &std::fs::read(&chain[1]).unwrap());
        let parameters = Parameters {
            unchanged: &unchanged,
            ..parameters
        };
        let unread = compose(&chain, &parameters).unwrap();
        assert!(unread.bytes == next.bytes, "round {number}");
        assert!(unread.read_bytes < next.read_bytes, "round {number}");
        assert_eq!(
            length - composed.bytes.len() as u64,
            expected,
            "round {number}"
        );
        assert!(next.bytes[65536..composed.bytes.len()] == composed.bytes[65536..]);
        composed = next;
    }
}

#[test]
fn a_previous_image_of_another_base_is_refused() {
    let dir = temp_dir();
    let chain_of = |name: &str, options| {
        let base = image(dir.path(), &format!("{name}-base"), options, "8M", None);
        let overlay = image(
            dir.path(),
            &format!("{name}-overlay"),
            options,
            "8M",
            Some(&base),
        );
        run_qemu_io(&overlay, &["write -P 2 0 1M"]);
        [base, overlay]
    };
    let composed = compose(&chain_of("small", "cluster_size=4k"), &PLAIN).unwrap();
    let chain = chain_of("large", "cluster_size=64k");
    let parameters = Parameters {
        previous: Some((&composed.image, &chain[0])),
        ..PLAIN
    };
    let error = compose(&chain, &parameters).err().expect("an error");
    assert_eq!(error, ComposeError::OtherBase);
}

#[test]
fn a_damaged_state_of_an_image_is_refused() {
    let dir = temp_dir();
    let base = image(dir.path(), "base", "cluster_size=4k", "1M", None);
    let overlay = image(dir.path(), "overlay", "cluster_size=4k", "1M", Some(&base));
    run_qemu_io(&overlay, &["write -P 2 0 64k"]);
    let stored = compose(&[base, overlay], &PLAIN).unwrap().image.to_bytes();
    for length in 0..stored.len() {
        assert!(
            ComposedImage::from_bytes(&stored[..length]).is_err(),
            "{length}"
        );
    }
}

#[test]
fn compression_depends_on_the_base() {
    let dir = temp_dir();
    let base = image(dir.path(), "base", "compat=0.10", "8M", None);
    run_qemu_io(&base, &["write -P 1 0 4M"]);
    let overlay = image(dir.path(), "overlay", "", "8M", Some(&base));
    run_qemu_io(&overlay, &["write -P 2 1M 4M"]);
    let zstd = Parameters {
        zstd: true,
        ..PLAIN
    };
    let chain = [base, overlay];
    let (path, compressed) = compose_and_check(dir.path(), &chain, &zstd);
    let facts = read_header(&std::fs::read(&path).unwrap()).unwrap();
    assert_eq!((facts.version, facts.compression), (3, Compression::Zstd));
    let (path, plain) = compose_and_check(dir.path(), &chain, &PLAIN);
    let facts = read_header(&std::fs::read(&path).unwrap()).unwrap();
    assert_eq!((facts.version, facts.compression), (2, Compression::Zlib));
    assert_eq!(plain - compressed, 63 * 65536);

    // With zlib clusters in the base no other compression is possible.
    let deflate = dir.path().join("deflate");
    qemu_img(&format!(
        "convert -c -O qcow2 {} {}",
        chain[0].display(),
        deflate.display()
    ));
    let overlay = image(dir.path(), "overlay-2", "", "8M", Some(&deflate));
    run_qemu_io(&overlay, &["write -P 2 1M 4M"]);
    let chain = [deflate, overlay];
    let (path, _) = compose_and_check(dir.path(), &chain, &zstd);
    let facts = read_header(&std::fs::read(&path).unwrap()).unwrap();
    assert_eq!(facts.compression, Compression::Zlib);
    let compact = Parameters {
        layout: Layout::Compact,
        ..zstd
    };
    let (path, _) = compose_and_check(dir.path(), &chain, &compact);
    let facts = read_header(&std::fs::read(&path).unwrap()).unwrap();
    assert_eq!(facts.compression, Compression::Zstd);
}

#[test]
fn the_header_keeps_valid_extensions_only() {
    let dir = temp_dir();
    let base = image(dir.path(), "base", "lazy_refcounts=on", "8M", None);
    run_qemu_io(&base, &["write -P 1 0 4M"]);
    let overlay = image(dir.path(), "overlay", "", "9M", Some(&base));
    for path in [&base, &overlay] {
        qemu_img(&format!("bitmap --add {} kept", path.display()));
    }
    run_qemu_io(&overlay, &["write -P 2 1M 4M"]);
    let chain = [base, overlay];
    let (path, _) = compose_and_check(dir.path(), &chain, &PLAIN);
    let head = &std::fs::read(&path).unwrap()[..65536];
    let (names, rest) = (&head[112..116], &head[112..]);
    assert_eq!(names, 0x6803_f857u32.to_be_bytes());
    let has = |bytes: &[u8]| rest.windows(bytes.len()).any(|window| window == bytes);
    // Bitmaps, format and name of the backing file.
    assert!(!has(&0x2385_2875u32.to_be_bytes()) && !has(&0xe279_2acau32.to_be_bytes()));
    assert!(!has(b"/base"));
    // Compatible and autoclear features: lazy refcounts are kept, the bit for bitmaps is not.
    assert_eq!(
        head[80..96],
        [0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]
    );

    // A header without compression type and without extensions.
    overwrite(&chain[0], 100, &104u32.to_be_bytes());
    overwrite(&chain[0], 104, &[0; 600]);
    overwrite(&chain[0], 88, &[0; 8]);
    for (zstd, length) in [(false, 104u32), (true, 112)] {
        let (path, _) = compose_and_check(dir.path(), &chain, &Parameters { zstd, ..PLAIN });
        let head = std::fs::read(&path).unwrap();
        assert_eq!(head[100..104], length.to_be_bytes());
    }
}

#[test]
fn unsupported_images_are_refused_with_a_reason() {
    let dir = temp_dir();
    let base = || image(dir.path(), "base", "", "8M", None);
    let features = |bits: u64| {
        let path = base();
        overwrite(&path, 72, &bits.to_be_bytes());
        compose_error(&[path])
    };
    assert_eq!(features(1), ComposeError::Dirty);
    assert_eq!(features(2), ComposeError::Corrupt);
    assert_eq!(features(4), ComposeError::ExternalData);
    assert_eq!(features(1 << 16), ComposeError::UnknownFeatures(1 << 16));
    let extended = image(dir.path(), "extended", "extended_l2=on", "8M", None);
    assert_eq!(compose_error(&[extended]), ComposeError::ExtendedL2);
    let wide = image(dir.path(), "wide", "refcount_bits=64", "8M", None);
    assert_eq!(compose_error(&[wide]), ComposeError::RefcountWidth(64));
    let path = base();
    qemu_img(&format!("snapshot -c one {}", path.display()));
    assert_eq!(compose_error(&[path]), ComposeError::InternalSnapshots(1));
    let path = base();
    overwrite(&path, 32, &1u32.to_be_bytes());
    assert_eq!(compose_error(&[path]), ComposeError::Encrypted);
    let path = base();
    let overlay = image(dir.path(), "overlay", "", "8M", Some(&path));
    assert!(matches!(
        compose_error(std::slice::from_ref(&overlay)),
        ComposeError::BaseHasBackingFile(_)
    ));
    let other = image(dir.path(), "other", "", "8M", None);
    assert_eq!(
        compose_error(&[path.clone(), other]),
        ComposeError::OverlayWithoutBackingFile(1)
    );
    overwrite(&path, 24, &1000u64.to_be_bytes());
    assert_eq!(compose_error(&[path]), ComposeError::UnalignedSize(1000));
}

#[test]
fn invalid_tables_are_refused() {
    let dir = temp_dir();
    let create = || {
        let path = image(dir.path(), "base", "cluster_size=4k", "8M", None);
        run_qemu_io(&path, &["write -P 1 0 4M"]);
        path
    };
    let field = |path: &Path, at: u64| {
        let mut bytes = [0; 8];
        File::open(path)
            .unwrap()
            .read_exact_at(&mut bytes, at)
            .unwrap();
        u64::from_be_bytes(bytes)
    };
    let l1_offset = |path: &Path| field(path, 40);
    let copied = 1u64 << 63;
    // Two L1 entries with the same L2 table, each of which would double the reads.
    let path = create();
    let l1 = l1_offset(&path);
    let l2 = field(&path, l1) & !copied;
    overwrite(&path, l1 + 8, &(copied | l2).to_be_bytes());
    let structure = "an L2 table";
    assert_eq!(
        compose_error(&[path]),
        ComposeError::Overlap {
            structure,
            offset: l2
        }
    );
    // A data cluster that is an L2 table.
    let path = create();
    overwrite(&path, l2, &(copied | l2).to_be_bytes());
    assert_eq!(
        compose_error(&[path]),
        ComposeError::Overlap {
            structure,
            offset: l2
        }
    );
    // Beyond the end of the file.
    let path = create();
    let far = 1u64 << 40;
    overwrite(&path, l1, &(copied | far).to_be_bytes());
    assert_eq!(
        compose_error(&[path]),
        ComposeError::Truncated {
            structure,
            offset: far
        }
    );
    let path = create();
    overwrite(&path, l2, &(copied | far).to_be_bytes());
    assert!(matches!(
        compose_error(&[path]),
        ComposeError::Truncated { .. }
    ));
    // A disk whose L1 table would be too large.
    let path = create();
    overwrite(&path, 24, &(1u64 << 60).to_be_bytes());
    assert!(matches!(compose_error(&[path]), ComposeError::TooLarge(_)));
    // A truncated file.
    let path = create();
    let file = File::options().write(true).open(&path).unwrap();
    file.set_len(2 << 20).unwrap();
    assert!(matches!(
        compose_error(&[path]),
        ComposeError::Truncated { .. }
    ));
}

/// Callers compress on another thread.
const _: () = {
    const fn is_send<T: Send>() {}
    is_send::<Composer>();
    is_send::<snapdeck_qcow2::MetadataWriter>();
};

#[test]
fn calls_out_of_order_are_errors() {
    let dir = temp_dir();
    let base = image(dir.path(), "base", "", "8M", None);
    let overlay = image(dir.path(), "overlay", "", "8M", Some(&base));
    run_qemu_io(&overlay, &["write -P 2 0 4M"]);
    let (base, overlay) = (tables_of(&base).unwrap(), tables_of(&overlay).unwrap());
    let new_composer = || {
        let (base, overlay) = (base.clone(), vec![overlay.clone()]);
        Composer::new(base, overlay, Layout::Append, Options::default()).unwrap()
    };
    let mut tail = bytes::BytesMut::new();
    let mut composer = new_composer();
    let (first, second) = (composer.next_read().unwrap(), composer.next_read().unwrap());
    let short = ComposeError::WrongLength {
        expected_bytes: 2 << 20,
        received_bytes: 5,
    };
    let out_of_order = ComposeError::OutOfOrder {
        expected_number: 0,
        received_number: 1,
    };
    assert_eq!(
        composer.push(&second, &[1; 2 << 20], &mut tail),
        Err(out_of_order)
    );
    assert_eq!(composer.push(&first, &[1; 5], &mut tail), Err(short));
    assert!(composer.finish(&mut tail).is_err());
    assert!(new_composer().finish(&mut tail).is_err());
    assert!(tail.is_empty());
}

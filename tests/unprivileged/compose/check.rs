//! Creates chains with QEMU's tools, composes them, and checks the images with QEMU and imago.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use imago::file::File as ImagoFile;
use imago::qcow2::Qcow2;
use imago::{FormatAccess, FormatDriverBuilder, PermissiveImplicitOpenGate};
use snapdeck_qcow2::{ComposedImage, Layout, read_header};

use crate::compose::cases::{Case, Generation, Kind, Overlay, RoundsCase, Write};
use crate::compose::driver::{Composed, Parameters, compose, tables_of};

/// Imago reads larger disks in samples only.
const MAX_FULL_READ: u64 = 24 << 20;

/// Runs a tool that must succeed.
pub(crate) fn run<S: AsRef<std::ffi::OsStr>>(program: &str, arguments: &[S]) {
    let (success, message) = attempt(program, arguments);
    assert!(success, "{message}");
}

/// Runs a tool; returns whether it succeeded, and a message with its output.
pub(crate) fn attempt<S: AsRef<std::ffi::OsStr>>(program: &str, arguments: &[S]) -> (bool, String) {
    let output = Command::new(program).args(arguments).output().unwrap();
    let words: Vec<String> = arguments
        .iter()
        .map(|argument| argument.as_ref().to_string_lossy().into_owned())
        .collect();
    let message = format!(
        "{program} {}: {}\n{}{}",
        words.join(" "),
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    (output.status.success(), message)
}

/// Runs `qemu-img` with arguments separated by spaces.
pub(crate) fn qemu_img(arguments: &str) {
    run(
        "qemu-img",
        &arguments.split_whitespace().collect::<Vec<_>>(),
    );
}

pub(crate) fn temp_dir() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

/// Returns the directory of source files. All sectors differ, so that exchanged clusters are detected.
fn sources() -> &'static Path {
    static DIR: OnceLock<PathBuf> = OnceLock::new();
    DIR.get_or_init(|| {
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("compose-sources");
        if dir.exists() {
            return dir;
        }
        let new = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))
            .unwrap()
            .keep();
        for number in 0..4u64 {
            let mut state = number + 1;
            let mut noise = Vec::new();
            let mut text = Vec::new();
            for sector in 0..8192u64 {
                for _ in 0..64 {
                    state ^= state << 13;
                    state ^= state >> 7;
                    state ^= state << 17;
                    noise.extend(state.to_be_bytes());
                }
                let line = format!("{number} and {sector}; ");
                text.extend(line.bytes().cycle().take(512));
            }
            std::fs::write(new.join(format!("noise-{number}")), noise).unwrap();
            std::fs::write(new.join(format!("text-{number}")), text).unwrap();
        }
        // Atomic; the files of a concurrent run are the same.
        if std::fs::rename(&new, &dir).is_err() {
            std::fs::remove_dir_all(&new).unwrap();
        }
        dir
    })
}

/// Returns offset and length of a write.
fn extent(write: &Write, size: u64, cluster: u64) -> (u64, u64) {
    let mut at = size / 512 * write.permille / 1000 * 512;
    let mut length = write.sectors * 512;
    if write.aligned || matches!(write.kind, Kind::Packed(_)) {
        at -= at % cluster;
        length = length.next_multiple_of(cluster);
    }
    (at, length.min(size.saturating_sub(at)))
}

/// Returns the `qemu-io` commands for writes.
fn commands(writes: &[Write], size: u64, cluster: u64, compress: bool) -> Vec<String> {
    let dir = sources().display();
    let command = |write: &Write| {
        let (at, length) = extent(write, size, cluster);
        let range = format!("{at} {length}");
        (length > 0).then(|| match write.kind {
            Kind::Noise(number) => format!("write -q -s {dir}/noise-{number} {range}"),
            Kind::Text(number) => format!("write -q -s {dir}/text-{number} {range}"),
            Kind::ZeroBytes => format!("write -q -P 0 {range}"),
            Kind::Zeros { unmap: false } => format!("write -q -z {range}"),
            Kind::Zeros { unmap: true } => format!("write -q -z -u {range}"),
            Kind::Discard => format!("discard -q {range}"),
            Kind::Packed(number) if compress => {
                format!("write -q -c -s {dir}/text-{number} {range}")
            }
            Kind::Packed(number) => format!("write -q -s {dir}/text-{number} {range}"),
        })
    };
    writes.iter().filter_map(command).collect()
}

fn write(path: &Path, format: &str, commands: &[String], must_succeed: bool) {
    if commands.is_empty() {
        return;
    }
    let mut arguments = vec!["-f", format, "-d", "unmap", "--cache=unsafe"];
    for command in commands {
        arguments.extend(["-c", command]);
    }
    let path = path.display().to_string();
    arguments.push(&path);
    let (success, message) = attempt("qemu-io", &arguments);
    // QEMU refuses a compressed write to an allocated cluster.
    assert!(success || !must_succeed, "{message}");
}

fn has_compressed(writes: &[Write]) -> bool {
    writes
        .iter()
        .any(|write| matches!(write.kind, Kind::Packed(_)))
}

fn create_base(case: &Case, path: &Path) {
    let cluster = 1u64 << case.cluster_bits;
    let compat = if case.version == 2 { "0.10" } else { "1.1" };
    let plain = path.with_extension("plain");
    let shown = plain.display();
    qemu_img(&format!(
        "create -q -f qcow2 -o cluster_size={cluster},compat={compat} {shown} {}",
        case.size
    ));
    if case.bitmaps && case.version == 3 {
        qemu_img(&format!("bitmap --add -g 65536 {shown} kept"));
    }
    write(
        &plain,
        "qcow2",
        &commands(&case.writes, case.size, cluster, case.compression.is_none()),
        case.compression.is_some() || !has_compressed(&case.writes),
    );
    let Some(compression) = case.compression else {
        std::fs::rename(&plain, path).unwrap();
        return;
    };
    let kind = match case.version {
        2 => String::new(),
        _ => format!(",compression_type={compression}"),
    };
    qemu_img(&format!(
        "convert -q -c -O qcow2 -o cluster_size={cluster},compat={compat}{kind} {shown} {}",
        path.display()
    ));
    if case.bitmaps && case.version == 3 {
        qemu_img(&format!("bitmap --add -g 65536 {} kept", path.display()));
    }
}

fn create_overlay(overlay: &Overlay, backing: &Path, path: &Path) {
    let cluster = 1u64 << overlay.cluster_bits;
    let compat = if overlay.version == 2 { "0.10" } else { "1.1" };
    let kind = if overlay.zstd {
        ",compression_type=zstd"
    } else {
        ""
    };
    let shown = path.display();
    qemu_img(&format!(
        "create -q -f qcow2 -b {} -F qcow2 -o cluster_size={cluster},compat={compat}{kind} {shown} {}",
        backing.display(),
        overlay.size
    ));
    if overlay.bitmaps {
        qemu_img(&format!("bitmap --add -g 65536 {shown} kept"));
    }
    write(
        path,
        "qcow2",
        &commands(&overlay.writes, overlay.size, cluster, true),
        !has_compressed(&overlay.writes),
    );
    if let Some(size) = overlay.resized {
        // Fails for some images, such as those with bitmaps.
        let size = size.to_string();
        let shown = shown.to_string();
        attempt(
            "qemu-img",
            &["resize", "-q", "--shrink", "-f", "qcow2", &shown, &size],
        );
    }
}

/// Creates and composes the chain of each generation. Returns `false` if QEMU wrote a damaged image: its compressed
/// writes sometimes allocate a cluster twice.
pub(crate) fn try_case(case: &Case) -> bool {
    let dir = temp_dir();
    let mut base = dir.path().join("base.qcow2");
    create_base(case, &base);
    if is_damaged(&base) {
        return false;
    }
    for (number, generation) in case.generations.iter().enumerate() {
        let mut chain = vec![base.clone()];
        for (layer, overlay) in generation.overlays.iter().enumerate() {
            let path = dir.path().join(format!("overlay-{number}-{layer}.qcow2"));
            create_overlay(overlay, &chain[layer], &path);
            if is_damaged(&path) {
                return false;
            }
            chain.push(path);
        }
        base = dir.path().join(format!("composed-{number}.qcow2"));
        check_composed(
            &chain,
            generation,
            (None, &[]),
            &base,
            1 << case.cluster_bits,
        );
    }
    true
}

/// Composes a chain, changes its topmost overlay in each round, and composes it on the image of the round before. Returns
/// `false` as [`try_case`] does.
pub(crate) fn try_rounds(case: &RoundsCase) -> bool {
    let dir = temp_dir();
    let (first, cluster) = (&case.first, 1 << case.first.cluster_bits);
    let base = dir.path().join("base.qcow2");
    create_base(first, &base);
    let mut chain = vec![base];
    for (layer, overlay) in case.overlays.iter().enumerate() {
        let path = dir.path().join(format!("overlay-{layer}.qcow2"));
        create_overlay(overlay, &chain[layer], &path);
        chain.push(path);
    }
    if chain.iter().any(|path| is_damaged(path)) {
        return false;
    }
    let (top, overlay) = (chain.last().unwrap(), case.overlays.last().unwrap());
    let saved = dir.path().join("saved.qcow2");
    let mut composed = dir.path().join("composed.qcow2");
    let generation = &first.generations[0];
    let mut image = check_composed(&chain, generation, (None, &[]), &composed, cluster).image;
    let mut before = std::fs::read(top).unwrap();
    for (number, round) in case.rounds.iter().enumerate() {
        match round.restores_copy && saved.exists() {
            true => drop(std::fs::copy(&saved, top).unwrap()),
            false => drop(std::fs::copy(top, &saved).unwrap()),
        }
        let size = tables_of(top).unwrap().facts().virtual_size;
        let commands = commands(&round.writes, size, 1 << overlay.cluster_bits, true);
        write(top, "qcow2", &commands, false);
        if let Some(size) = round.resized {
            let (size, shown) = (size.to_string(), top.display().to_string());
            let resize = ["resize", "-q", "--shrink", "-f", "qcow2", &shown, &size];
            attempt("qemu-img", &resize);
        }
        if is_damaged(top) {
            return false;
        }
        let path = dir.path().join(format!("composed-{number}.qcow2"));
        let generation = &round.generation;
        let after = std::fs::read(top).unwrap();
        // A guest's view of the disk has no offsets in the file.
        let unchanged = match generation.reads_guest {
            true => Vec::new(),
            false => unchanged_ranges(&before, &after),
        };
        let kept = (Some((&image, &*composed)), &*unchanged);
        let next = check_composed(&chain, generation, kept, &path, cluster);
        before = after;
        std::fs::remove_file(&composed).unwrap();
        (image, composed) = (next.image, path);
    }
    true
}

/// Returns the ranges of a file, in units of 8 KiB, that have the same bytes as before.
pub(crate) fn unchanged_ranges(before: &[u8], after: &[u8]) -> Vec<Range<u64>> {
    const UNIT: usize = 8192;
    let mut ranges: Vec<Range<u64>> = Vec::new();
    for (number, (old, new)) in before.chunks(UNIT).zip(after.chunks(UNIT)).enumerate() {
        let start = (number * UNIT) as u64;
        let range = start..start + new.len() as u64;
        match ranges.last_mut() {
            _ if old != new => {}
            Some(last) if last.end == start => last.end = range.end,
            _ => ranges.push(range),
        }
    }
    ranges
}

/// Returns whether an image written by QEMU is damaged. Leaks (exit code 3) are not damage. `check` may pass for an image that
/// QEMU has marked as corrupt.
fn is_damaged(path: &Path) -> bool {
    let check = Command::new("qemu-img")
        .args(["check", "-q", "-f", "qcow2"])
        .arg(path)
        .output()
        .unwrap();
    let (_, info) = attempt("qemu-img", &[Path::new("info"), path]);
    !matches!(check.status.code(), Some(0 | 3)) || info.contains("corrupt: true")
}

/// Composes the chain to the file `path`, on the previous image if there is one, and runs all checks.
fn check_composed(
    chain: &[PathBuf],
    generation: &Generation,
    (previous, unchanged): (Option<(&ComposedImage, &Path)>, &[Range<u64>]),
    path: &Path,
    cluster: u64,
) -> Composed {
    let top = chain.last().unwrap();
    let raw = path.with_extension("raw");
    qemu_img(&format!(
        "convert -q -f qcow2 -O raw {} {}",
        top.display(),
        raw.display()
    ));
    let composed = compose(
        chain,
        &Parameters {
            layout: generation.layout,
            zstd: generation.zstd,
            read_ahead: generation.read_ahead,
            disk: generation.reads_guest.then_some(&*raw),
            previous,
            unchanged,
        },
    )
    .unwrap();
    std::fs::write(path, &composed.bytes).unwrap();

    let facts = read_header(&composed.bytes).unwrap();
    let size = tables_of(top).unwrap().facts().virtual_size;
    assert_eq!(facts.virtual_size, size);
    assert!(facts.is_standalone());
    assert_eq!(facts.cluster_size, cluster);
    let length = composed.bytes.len() as u64;
    assert!(length.is_multiple_of(cluster));
    let estimate = composed.estimate;
    assert!(length <= estimate.file_bytes, "{length} of {estimate:?}");
    let new_bytes = length - (composed.kept.end - composed.kept.start);
    assert!(new_bytes <= estimate.new_bytes);
    assert!(composed.read_bytes <= estimate.read_bytes);
    if generation.layout == Layout::Append || previous.is_some() {
        let kept = previous.map_or(&*chain[0], |(_, path)| path);
        let old = std::fs::read(kept).unwrap();
        let kept = composed.kept.start as usize..composed.kept.end as usize;
        assert_eq!(kept.end, old.len());
        assert!(composed.bytes[kept.clone()] == old[kept]);
    }

    assert_intact(path);
    assert_same(path, &raw);
    assert_same_for_imago(path, &raw, size);
    assert_writable(path, &raw, generation, size, cluster);
    composed
}

/// Asserts that an image has neither errors nor leaks.
pub(crate) fn assert_intact(path: &Path) {
    qemu_img(&format!("check -q -f qcow2 {}", path.display()));
}

pub(crate) fn assert_same(path: &Path, raw: &Path) {
    qemu_img(&format!(
        "compare -f qcow2 -F raw {} {}",
        path.display(),
        raw.display()
    ));
}

/// Asserts that imago reads the same. It does not support zstd.
pub(crate) fn assert_same_for_imago(path: &Path, raw: &Path, size: u64) {
    let start = std::fs::read(path).unwrap();
    let incompatible = u64::from_be_bytes(start[72..80].try_into().unwrap());
    let version_3 = start[7] == 3;
    if size == 0 || version_3 && incompatible != 0 {
        return;
    }
    let image = Qcow2::<ImagoFile>::builder_path(path)
        .open(PermissiveImplicitOpenGate::default())
        .unwrap();
    let image = FormatAccess::new(image);
    let raw = std::fs::File::open(raw).unwrap();
    let step = 1 << 20;
    let offsets: Vec<u64> = match size <= MAX_FULL_READ {
        true => (0..size).step_by(step as usize).collect(),
        // Start, end, and samples in between.
        false => (0..=20u64)
            .map(|at| (size - step) / 20 * at / 512 * 512)
            .chain([size - step])
            .collect(),
    };
    for at in offsets {
        let length = step.min(size - at);
        let mut bytes = vec![0; length as usize];
        image.read(&mut bytes[..], at).unwrap();
        let expected = crate::compose::driver::read(&raw, &(at..at + length));
        assert!(bytes == expected, "imago reads other bytes at {at}");
    }
}

/// Writes to a copy and enlarges it; asserts that it is intact and has the written data.
fn assert_writable(path: &Path, raw: &Path, generation: &Generation, size: u64, cluster: u64) {
    let copy = path.with_extension("written");
    let raw_copy = path.with_extension("written-raw");
    std::fs::copy(path, &copy).unwrap();
    run(
        "cp",
        &[Path::new("--sparse=always"), raw, raw_copy.as_path()],
    );
    // The content of a discarded cluster depends on the image: zeros instead.
    let zeros = |write: &Write| Write {
        kind: match write.kind {
            Kind::Discard => Kind::Zeros { unmap: true },
            kind => kind,
        },
        ..write.clone()
    };
    let writes: Vec<Write> = generation.later_writes.iter().map(zeros).collect();
    let commands = commands(&writes, size, cluster, false);
    write(&copy, "qcow2", &commands, true);
    write(&raw_copy, "raw", &commands, true);
    let grown = size + generation.added_bytes;
    qemu_img(&format!("resize -q -f qcow2 {} {grown}", copy.display()));
    let file = std::fs::File::options().write(true).open(&raw_copy);
    file.unwrap().set_len(grown).unwrap();
    assert_intact(&copy);
    assert_same(&copy, &raw_copy);
    std::fs::remove_file(&copy).unwrap();
    std::fs::remove_file(&raw_copy).unwrap();
}

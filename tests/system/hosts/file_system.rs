//! The contract of `HostFs`, for the files of a local host and of one over SSH.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use snapdeck_host::{
    BlockCopy, BlockState, Checksum, Content, CopySource, Host, HostFs, hash_block,
};
use snapdeck_model::{BLOCK_BYTES, BufferPool, Kind};
use tokio::sync::mpsc::unbounded_channel;
use tokio_util::sync::CancellationToken;

use crate::common::{World, run};

/// Runs `test` on both kinds of hosts.
async fn on_each(test: impl AsyncFn(&World, &dyn HostFs)) {
    for world in [World::private_local(), World::over_ssh(1)] {
        let host = Host::new(world.settings().hosts[0].clone()).unwrap();
        test(&world, host.fs()).await;
        host.disconnect().await;
    }
}

fn content(version: &str, size_bytes: u64) -> Content {
    Content {
        version: Some(version.into()),
        size_bytes,
    }
}

fn mode(path: &str) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[tokio::test(flavor = "multi_thread")]
async fn whole_files_are_written_read_copied_and_removed() {
    on_each(async |world, fs| {
        let path = world.path("snapshots/a b'$(x).json");
        assert_eq!(fs.read_file(&path, 10).await.unwrap(), None);
        assert!(!fs.has_file(&path).await.unwrap());
        for text in ["first\n\0bytes", ""] {
            fs.write_file(&path, text.into()).await.unwrap();
            assert_eq!(mode(&path), 0o644);
            let read = fs.read_file(&path, 100).await.unwrap().unwrap();
            assert_eq!(read, text.as_bytes());
        }
        fs.write_file(&path, "longer".into()).await.unwrap();
        assert_eq!(fs.read_file(&path, 4).await.unwrap().unwrap(), b"long");
        assert_eq!(fs.image_file(&path).await.unwrap().unwrap().size_bytes, 6);

        let copy = world.path("snapshots/copy");
        fs.create_new(&copy, "longer".into()).await.unwrap();
        assert_eq!(mode(&copy), 0o644);
        let refused = fs.create_new(&copy, "longer".into()).await.unwrap_err();
        assert_eq!(refused.kind(), Kind::Conflict, "{refused}");
        fs.flush_file(&copy, &CancellationToken::new())
            .await
            .unwrap();
        assert_eq!(std::fs::read(&copy).unwrap(), b"longer");

        for existed in [true, false] {
            assert_eq!(fs.remove_file(&path).await.unwrap(), existed);
        }
        assert_eq!(world.names("snapshots"), ["copy"]);

        // Missing ones are no error.
        for (first, existed) in [("copy", true), ("other", false)] {
            let paths =
                [first, "missing", "next"].map(|name| world.path(&format!("snapshots/{name}")));
            fs.write_file(&paths[2], "next".into()).await.unwrap();
            let paths = paths.each_ref().map(String::as_str);
            assert_eq!(fs.remove_files(&paths).await.unwrap(), existed);
        }
        assert!(world.names("snapshots").is_empty());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_directories_of_snapdeck_are_removed() {
    for world in [World::private_local(), World::over_ssh(1)] {
        let host = Host::new(world.settings().hosts[0].clone()).unwrap();
        let dirs = host.scratch_dirs();
        let temp = dirs.make_temp().await.unwrap();
        assert!(temp.starts_with(&world.path("temp/")), "{temp}");
        assert_eq!(mode(&temp), 0o700);
        std::fs::create_dir(format!("{temp}/sub")).unwrap();
        std::fs::write(format!("{temp}/sub/file"), "x").unwrap();
        let backup = dirs.make_backup(&"vm".parse().unwrap()).await.unwrap();
        let stale = host.backups().stale().await.unwrap();
        let found: Vec<&str> = stale.iter().map(|stale| &*stale.dir).collect();
        assert_eq!(found, [&backup]);
        // Something else has its name now.
        let moved = world.path("temp/moved");
        std::fs::rename(&temp, &moved).unwrap();
        std::fs::create_dir(&temp).unwrap();
        std::fs::write(format!("{temp}/other"), "x").unwrap();
        assert!(dirs.remove(&temp).await.is_err());
        assert!(std::fs::exists(format!("{temp}/other")).unwrap());
        std::fs::remove_dir_all(&temp).unwrap();
        std::os::unix::fs::symlink(&moved, &temp).unwrap();
        assert!(dirs.remove(&temp).await.is_err());
        assert!(std::fs::exists(format!("{moved}/sub/file")).unwrap());
        std::fs::remove_file(&temp).unwrap();
        std::fs::rename(&moved, &temp).unwrap();
        for dir in [&temp, &backup, &temp] {
            dirs.remove(dir).await.unwrap();
        }
        let snapshots = world.path("snapshots");
        assert!(dirs.remove(&snapshots).await.is_err());
        assert!(std::fs::exists(snapshots).unwrap());
        assert!(host.backups().stale().await.unwrap().is_empty());
        assert_eq!(world.names("temp"), [""; 0]);
        let temp_dir = world.path("temp");
        assert!(host.fs().free_bytes(&temp_dir).await.unwrap() > 0);
        host.disconnect().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn directories_in_each_other_do_not_hold_up_the_removal_of_a_backups_files() {
    for world in [World::private_local(), World::over_ssh(1)] {
        let host = Host::new(world.settings().hosts[0].clone()).unwrap();
        let dirs = host.scratch_dirs();
        let backup = dirs.make_backup(&"vm".parse().unwrap()).await.unwrap();
        let script = "import os, sys\nos.chdir(sys.argv[1])\nfor _ in range(20000): os.mkdir('d' * 255); os.chdir('d' * 255)";
        run("python3", &["-c", script, &format!("{backup}/run")]);
        // To compare all paths would take minutes.
        let removed = tokio::time::timeout(Duration::from_secs(110), dirs.remove(&backup));
        removed.await.expect("it takes too long").unwrap();
        assert_eq!(world.names("sandboxes"), [""; 0]);
        host.disconnect().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn links_are_resolved_as_far_as_they_exist() {
    on_each(async |world, fs| {
        let (target, link) = (world.path("scratch"), world.path("temp/link"));
        std::os::unix::fs::symlink(&target, &link).unwrap();
        let paths = [&*link, &*format!("{link}/missing"), &*world.path("temp")];
        let real = fs.canonicalize(&paths).await.unwrap();
        let expected = [
            target.clone(),
            format!("{target}/missing"),
            world.path("temp"),
        ];
        assert_eq!(real, expected.map(std::path::PathBuf::from));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_written_by_one_writer_resumed_and_published_once() {
    on_each(async |world, fs| {
        let (dir, path) = (world.path("snapshots/.a.pull"), world.path("snapshots/a"));
        let partial = format!("{dir}/partial");
        let size = BLOCK_BYTES + 5;
        let buffers = BufferPool::default();
        let writer = fs.open_writer(&dir, &content("v1", size)).await.unwrap();
        assert!(writer.resume_state().blocks.is_empty());
        assert_eq!((mode(&dir), mode(&partial)), (0o700, 0o644));
        let second = fs.open_writer(&dir, &content("v1", size)).await;
        assert_eq!(second.err().unwrap().kind(), Kind::Conflict);
        writer
            .write_at(BLOCK_BYTES, b"tail!".to_vec().into())
            .await
            .unwrap();
        let digest = hash_block(b"tail!");
        let zeros = hash_block(&[0; BLOCK_BYTES as usize]);
        // None of them where they are not certain.
        let holes = writer.hole_blocks().await.unwrap();
        assert_eq!(holes.size_bytes(), size);
        assert!(holes.is_empty() || holes.iter().eq([0]), "{holes}");
        writer.record(&[(0, zeros), (1, digest)]).await.unwrap();
        drop(writer);

        // The lock of a remote writer is released after its connection is closed.
        let reopen = async |version: &str| loop {
            match fs.open_writer(&dir, &content(version, size)).await {
                Err(error) if error.kind() == Kind::Conflict => {}
                opened => break opened.unwrap(),
            }
        };
        let writer = reopen("v1").await;
        let resumed = writer.resume_state();
        assert_eq!(resumed.blocks, BTreeMap::from([(0, zeros), (1, digest)]));
        assert!(resumed.is_same_boot);
        drop(writer);
        let writer = reopen("v2").await;
        assert!(writer.resume_state().blocks.is_empty(), "other content");
        writer.write_at(0, b"head".to_vec().into()).await.unwrap();
        writer.finish().await.unwrap();
        assert_eq!(writer.image_file().await.unwrap().size_bytes, size);
        let elsewhere = world.path("temp/a");
        assert!(writer.rename_into_place(&elsewhere, None).await.is_err());
        assert!(!std::fs::exists(elsewhere).unwrap());

        std::fs::write(&path, "existing").unwrap();
        let stamp = fs.image_file(&path).await.unwrap().map(|file| file.stamp);
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "existing").unwrap();
        for replaced in [None, stamp] {
            let refused = writer.rename_into_place(&path, replaced).await;
            let refused = refused.unwrap_err();
            assert_eq!(refused.kind(), Kind::Conflict, "{refused}");
            assert_eq!(std::fs::read(&path).unwrap(), b"existing");
        }
        let stamp = fs.image_file(&path).await.unwrap().map(|file| file.stamp);
        writer.rename_into_place(&path, stamp).await.unwrap();
        drop(writer);
        assert_eq!(world.names("snapshots"), ["a"]);
        assert_eq!(mode(&path), 0o644);

        let reader = fs.open_reader(&path).await.unwrap();
        assert_eq!(reader.size_bytes(), size);
        let head = reader.read_at(&buffers, 0, 6).await.unwrap();
        assert_eq!(&head[..], b"head\0\0");
        assert!(
            reader.read_at(&buffers, size - 1, 2).await.is_err(),
            "past the end"
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_others_are_never_written_to() {
    on_each(async |world, fs| {
        let dir = world.path("snapshots/.a.pull");
        let (partial, mark) = (format!("{dir}/partial"), format!("{dir}/.snapdeck-owner"));
        let log = format!("{partial}.mark");
        let refused = async || {
            let error = fs.open_writer(&dir, &content("v", 9)).await.err();
            let error = error.expect("a directory of others was used");
            assert_eq!(error.kind(), Kind::Conflict, "{error}");
            fs.remove_finished(&dir).await.unwrap();
            error.to_string()
        };
        // A file, a link to a private directory, one without a mark, with that of another program.
        std::fs::write(&dir, "precious").unwrap();
        assert!(refused().await.contains("is not a directory"));
        assert_eq!(std::fs::read(&dir).unwrap(), b"precious");
        std::fs::remove_file(&dir).unwrap();
        let target = world.path("scratch/target");
        make_private(&target);
        std::os::unix::fs::symlink(&target, &dir).unwrap();
        refused().await;
        assert_eq!(std::fs::read_dir(&target).unwrap().count(), 0);
        std::fs::remove_file(&dir).unwrap();
        make_private(&dir);
        std::fs::write(&partial, "precious").unwrap();
        assert!(refused().await.contains("did not create"));
        std::fs::write(&mark, "a note").unwrap();
        assert!(refused().await.contains("did not create"));
        assert_eq!(std::fs::read(&partial).unwrap(), b"precious");
        assert_eq!(std::fs::read(&mark).unwrap(), b"a note");

        // The directory of another installation: the same object is continued, another one is not put in its place.
        let owner = r#"{"id":"0123456789abcdef0123456789abcdef","creator":"ada on build-1","created":"2026-01-02T03:04:05Z"}"#;
        std::fs::write(&mark, owner).unwrap();
        assert!(refused().await.contains("ada on build-1"));
        let header = r#"{"content":{"version":"v","sizeBytes":9},"bootId":"b"}"#;
        let text = format!("{header}\t0 {}\t", hash_block(b"123456789"));
        std::fs::write(&partial, "123456789").unwrap();
        std::fs::write(&log, &text).unwrap();
        let error = fs.open_writer(&dir, &content("w", 9)).await.err();
        assert!(error.unwrap().to_string().contains("ada on build-1"));
        assert_eq!(std::fs::read(&partial).unwrap(), b"123456789");
        assert_eq!(std::fs::read_to_string(&log).unwrap(), text);
        let writer = fs.open_writer(&dir, &content("v", 9)).await.unwrap();
        assert_eq!(writer.resume_state().blocks.len(), 1);
        writer
            .rename_into_place(&world.path("snapshots/a"), None)
            .await
            .unwrap();
        assert_eq!(world.names("snapshots"), ["a"]);
    })
    .await;
}

fn make_private(dir: &str) {
    std::fs::create_dir(dir).unwrap();
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o700)).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_gets_the_name_of_a_writers_is_neither_used_nor_removed() {
    on_each(async |world, fs| {
        let (dir, moved) = (
            world.path("snapshots/.a.pull"),
            world.path("snapshots/.moved"),
        );
        let writer = fs.open_writer(&dir, &content("v", 9)).await.unwrap();
        writer
            .write_at(0, b"123456789".to_vec().into())
            .await
            .unwrap();
        writer.finish().await.unwrap();
        std::fs::rename(&dir, &moved).unwrap();
        run("cp", &["-a", &moved, &dir]);
        std::fs::write(format!("{dir}/partial"), "fake").unwrap();
        // Locally by the descriptor it is published all the same.
        let published = writer
            .rename_into_place(&world.path("snapshots/a"), None)
            .await;
        if published.is_ok() {
            assert_eq!(
                std::fs::read(world.path("snapshots/a")).unwrap(),
                b"123456789"
            );
        } else {
            assert!(!std::fs::exists(world.path("snapshots/a")).unwrap());
            assert!(writer.discard().await.is_err());
        }
        assert_eq!(std::fs::read(format!("{dir}/partial")).unwrap(), b"fake");
        assert!(std::fs::exists(&moved).unwrap());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_directory_of_a_finished_writer_is_removed_and_one_to_resume_kept() {
    on_each(async |world, fs| {
        let dir = world.path("snapshots/.a.pull");
        let partial = format!("{dir}/partial");
        fs.remove_finished(&dir).await.unwrap();
        drop(fs.open_writer(&dir, &content("v", 9)).await.unwrap());
        fs.remove_finished(&dir).await.unwrap();
        assert!(std::fs::exists(&partial).unwrap());
        // Killed between link and removal, between removal and rename.
        std::fs::hard_link(&partial, world.path("snapshots/a")).unwrap();
        fs.remove_finished(&dir).await.unwrap();
        assert_eq!(world.names("snapshots"), ["a"]);
        let writer = fs.open_writer(&dir, &content("v", 9)).await.unwrap();
        std::fs::remove_file(&partial).unwrap();
        fs.remove_finished(&dir).await.unwrap();
        assert_eq!(world.names("snapshots"), ["a"]);
        // A missing one is fine.
        writer.discard().await.ok();
        // Nothing proves that snapdeck has created it.
        make_private(&dir);
        fs.remove_finished(&dir).await.unwrap();
        assert!(std::fs::exists(&dir).unwrap());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_discarded_file_leaves_nothing() {
    on_each(async |world, fs| {
        let dir = world.path("snapshots/.a.pull");
        let writer = fs.open_writer(&dir, &content("v", 9)).await.unwrap();
        writer
            .write_at(0, b"123456789".to_vec().into())
            .await
            .unwrap();
        let digest = hash_block(b"123456789");
        writer.record(&[(0, digest)]).await.unwrap();
        writer.discard().await.unwrap();
        assert_eq!(world.names("snapshots"), [""; 0]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn blocks_are_hashed_and_copied_on_the_host() {
    on_each(async |world, fs| {
        let source = world.path("scratch/source");
        let blocks = [vec![1; BLOCK_BYTES as usize], b"end".to_vec()];
        std::fs::write(&source, blocks.concat()).unwrap();
        let size = BLOCK_BYTES + 3;
        let copies = [(0, 0, BLOCK_BYTES), (1, 1, 3), (7, 7, BLOCK_BYTES)].map(
            |(source, target, size_bytes)| BlockCopy {
                source,
                target,
                size_bytes,
            },
        );
        let never = CancellationToken::new();
        let states =
            |mut results: tokio::sync::mpsc::UnboundedReceiver<(BlockCopy, BlockState)>| {
                let mut states = BTreeMap::new();
                while let Ok((block, state)) = results.try_recv() {
                    states.insert(block.target, state);
                }
                states
            };
        let digests = blocks
            .each_ref()
            .map(|block| BlockState::Hashed(hash_block(block)));
        let (sender, results) = unbounded_channel();
        fs.hash_blocks(&source, None, &copies, &sender, &never)
            .await
            .unwrap();
        let expected = BTreeMap::from([
            (0, digests[0]),
            (1, digests[1]),
            (7, BlockState::Unreadable),
        ]);
        assert_eq!(states(results), expected);

        for stamp in [
            None,
            Some(fs.image_file(&source).await.unwrap().unwrap().stamp),
        ] {
            let dir = world.path("snapshots/.copy.pull");
            let target = format!("{dir}/partial");
            let writer = fs.open_writer(&dir, &content("v", size)).await.unwrap();
            let from = CopySource {
                path: source.clone(),
                stamp,
            };
            let (sender, results) = unbounded_channel();
            writer
                .copy(&from, &copies[..2], &sender, &never)
                .await
                .unwrap();
            writer.finish().await.unwrap();
            let copied: Vec<BlockState> = states(results).into_values().collect();
            // Extents that a file system shares are not read.
            let is_shared = stamp.is_some() && copied == [BlockState::Trusted; 2];
            assert!(copied == digests || is_shared, "{copied:?}");
            assert_eq!(std::fs::read(&target).unwrap(), blocks.concat());
            let (sender, results) = unbounded_channel();
            writer
                .hash_blocks(&copies[..2], &sender, &never)
                .await
                .unwrap();
            let hashed: Vec<BlockState> = states(results).into_values().collect();
            assert_eq!(hashed, digests);
            writer.discard().await.unwrap();
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_file_with_the_stamp_is_read() {
    on_each(async |world, fs| {
        let (path, other) = (world.path("snapshots/a"), world.path("snapshots/b"));
        for path in [&path, &other] {
            std::fs::write(path, "text").unwrap();
        }
        let block = BlockCopy {
            source: 0,
            target: 0,
            size_bytes: 4,
        };
        let (never, progress) = (CancellationToken::new(), Default::default());
        let read = async |stamp| {
            let (sender, _results) = unbounded_channel();
            let (blocks, sums) = ([block], Checksum::Sha256);
            let hashed = fs.hash_blocks(&path, stamp, &blocks, &sender, &never);
            let holes = fs.hole_blocks(&path, stamp);
            let sums = fs.part_checksums((&path, stamp), sums, &[4], &progress, &never);
            [hashed.await.err(), holes.await.err(), sums.await.err()]
        };
        let file = fs.image_file(&path).await.unwrap().unwrap();
        let stamp = file.stamp;
        assert!(fs.open_reader(&path).await.unwrap().is_of(&file));
        assert!(!fs.open_reader(&other).await.unwrap().is_of(&file));
        for stamp in [None, Some(stamp)] {
            assert_eq!(
                read(stamp)
                    .await
                    .map(|error| error.map(|error| error.kind())),
                [None; 3]
            );
        }
        let aside = world.path("snapshots/c");
        for (from, to) in [(&path, &aside), (&other, &path), (&aside, &other)] {
            std::fs::rename(from, to).unwrap();
        }
        for error in read(Some(stamp)).await {
            let error = error.expect("another file was read");
            assert_eq!(error.kind(), Kind::Conflict);
            let message = error.message();
            assert!(
                message.contains("it was changed while it was read"),
                "{message}"
            );
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_changes_while_it_is_hashed_is_not_taken_for_what_was_read() {
    on_each(async |world, fs| {
        const BLOCKS: u64 = 24;
        let path = world.path("snapshots/a");
        let file = std::fs::File::create(&path).unwrap();
        file.set_len(BLOCKS * BLOCK_BYTES).unwrap();
        let stamp = fs.image_file(&path).await.unwrap().unwrap().stamp;
        let blocks: Vec<BlockCopy> = (0..BLOCKS)
            .map(|block| BlockCopy {
                source: block,
                target: block,
                size_bytes: BLOCK_BYTES,
            })
            .collect();
        let never = CancellationToken::new();
        let (sender, mut results) = unbounded_channel();
        let hashing = fs.hash_blocks(&path, Some(stamp), &blocks, &sender, &never);
        let change = async {
            results.recv().await.expect("no block was hashed");
            file.set_permissions(std::fs::Permissions::from_mode(0o640))
                .unwrap();
        };
        let (hashed, ()) = tokio::join!(hashing, change);
        let error = hashed.unwrap_err();
        assert_eq!(error.kind(), Kind::Conflict, "{error}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_file_whose_damage_is_known_is_opened_for_repair() {
    on_each(async |world, fs| {
        let path = world.path("snapshots/a");
        std::fs::write(&path, "damaged").unwrap();
        let damaged = fs.image_file(&path).await.unwrap().unwrap().stamp;
        // Another image gets its name.
        std::fs::rename(&path, world.path("snapshots/c")).unwrap();
        std::fs::write(&path, "another").unwrap();
        let refused = fs.open_for_repair(&path, damaged).await.err();
        let error = refused.expect("it was opened");
        assert_eq!(error.kind(), Kind::Conflict, "{error}");
        let another = fs.image_file(&path).await.unwrap().unwrap().stamp;
        let writer = fs.open_for_repair(&path, another).await.unwrap();
        writer.write_at(0, "repaired".into()).await.unwrap();
        writer.finish().await.unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"repaired");
    })
    .await;
}

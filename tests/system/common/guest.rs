//! A guest with a kernel of its own (tests/lab/guest.init): it counts, writes numbered records to its disk, tells of
//! both on its serial port, and obeys its power button.

use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use super::process::{run, until};
use super::{World, exists};

/// What one guest has told so far.
pub(crate) struct Guest {
    log: PathBuf,
}

/// What a guest found on its disk when it booted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Boot {
    /// Differs at every boot.
    pub id: String,
    /// The last record, as the disk says.
    pub head: u64,
    /// Records that are there, one after the other, as they were written.
    pub whole: u64,
}

/// A sign of life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Alive {
    /// As [`Boot::id`].
    pub boot: String,
    /// A counter in the guest's memory.
    pub count: u64,
    /// The last record it has written.
    pub head: u64,
}

impl World {
    /// From here on `snapdeck sandbox new` makes sandboxes with this guest: by a template of the user's, as anybody
    /// may write one.
    pub(crate) fn use_guest(&self) {
        self.use_guest_that("");
    }

    /// As [`World::use_guest`], booted with these words, too (tests/lab/guest.init).
    pub(crate) fn use_guest_that(&self, words: &str) {
        let kernel = concat!(env!("CARGO_MANIFEST_DIR"), "/.lab/guest");
        assert!(exists(kernel), "no guest: run the tests with `make test`");
        let dir = self.dir.display();
        let template = self.dir.join("guest.xml");
        std::fs::write(
            &template,
            format!(
                "<domain type='{{{{accel}}}}'><name>{{{{id}}}}</name>\n\
                 <memory unit='b'>{{{{memory_bytes}}}}</memory><vcpu>{{{{cpus}}}}</vcpu>\n\
                 <os><type arch='x86_64' machine='q35'>hvm</type><kernel>{kernel}/kernel</kernel>\n\
                 <initrd>{kernel}/initrd</initrd><cmdline>console=ttyS0 quiet panic=-1 {words} </cmdline></os>\n\
                 <features><acpi/></features>{{{{cpu}}}}<devices>\n\
                 <disk type='file' device='disk'><driver name='qemu' type='qcow2' discard='unmap'/>\n\
                 <source file='{{{{disk}}}}'/><target dev='vda' bus='virtio'/></disk>\n\
                 <serial type='file'><source path='{dir}/{{{{id}}}}.log' append='on'/><target port='0'/></serial>\n\
                 <channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>\n\
                 </devices></domain>\n"
            ),
        )
        .unwrap();
        let memory = "memory_mib = 128\ntemplate = ";
        self.reconfigure(
            "memory_mib = 64\n",
            &format!("{memory}\"{}\"\n", template.display()),
        );
    }

    /// What the guest of a sandbox has told.
    pub(crate) fn guest(&self, id: &str) -> Guest {
        Guest {
            log: self.dir.join(format!("{id}.log")),
        }
    }
}

/// The last record that a guest with `scatter` had written, as an image says; every record up to there is in it.
#[track_caller]
pub(crate) fn consistent_records(image: &str) -> u64 {
    let raw = format!("{image}.raw");
    run(
        "qemu-img",
        &["convert", "-f", "qcow2", "-O", "raw", image, &raw],
    );
    let disk = std::fs::File::open(&raw).unwrap();
    std::fs::remove_file(&raw).unwrap();
    let sector = |number: u64| {
        let mut bytes = [0; 512];
        disk.read_exact_at(&mut bytes, number * 512).unwrap();
        let text = std::str::from_utf8(&bytes).unwrap();
        text.trim_end_matches('\0').trim_end().to_owned()
    };
    let head: u64 = sector(8).parse().unwrap();
    for record in 1..=head {
        assert_eq!(
            sector(2048 + record),
            format!("record {record}"),
            "head {head}"
        );
    }
    for record in head.saturating_sub(999).max(1)..=head {
        let place = 1_048_576 + 128 * (record * 7919 % 1000);
        // The one after the head may be there, and is where another was.
        let next = (record + 1000 == head + 1).then(|| format!("record {}", head + 1));
        let found = sector(place);
        let right = found == format!("record {record}") || Some(&found) == next.as_ref();
        assert!(right, "record {record} is {found:?}, head {head}");
    }
    head
}

impl Guest {
    /// Its lines `guest WORD ...`, without those two words.
    fn lines(&self, word: &str) -> Vec<Vec<String>> {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        // The last line may be half told.
        let (whole, _) = text.rsplit_once('\n').unwrap_or_default();
        let told = whole.lines().map(|line| line.split_whitespace());
        told.filter_map(|mut words| {
            let ours = words.next() == Some("guest") && words.next() == Some(word);
            ours.then(|| words.map(str::to_owned).collect())
        })
        .collect()
    }

    /// All its boots so far.
    pub(crate) fn boots(&self) -> Vec<Boot> {
        let boot = |words: Vec<String>| Boot {
            id: words[0].clone(),
            head: words[2].parse().unwrap(),
            whole: words[4].parse().unwrap(),
        };
        self.lines("boot").into_iter().map(boot).collect()
    }

    /// Its signs of life so far.
    pub(crate) fn alive(&self) -> Vec<Alive> {
        let alive = |words: Vec<String>| Alive {
            boot: words[0].clone(),
            count: words[1].parse().unwrap(),
            head: words[2].parse().unwrap(),
        };
        self.lines("alive").into_iter().map(alive).collect()
    }

    /// Waits until it is alive at a boot after the first `boots`, and has written something.
    #[track_caller]
    pub(crate) fn wait_alive(&self, boots: usize) -> Alive {
        let last = || self.alive().pop();
        until("the guest is alive", || {
            let at = self.boots().into_iter().nth(boots);
            at.zip(last()).is_some_and(|(at, last)| last.boot == at.id)
        });
        last().unwrap()
    }

    /// Waits until it has come further than `before`; returns where it is.
    #[track_caller]
    pub(crate) fn wait_beyond(&self, before: &Alive) -> Alive {
        let last = || self.alive().pop().unwrap();
        until("the guest goes on", || last().count > before.count);
        last()
    }

    /// The last record it had written each time its agent brought its writes to rest.
    pub(crate) fn frozen(&self) -> Vec<u64> {
        let frozen = self.lines("frozen").into_iter();
        frozen.map(|words| words[1].parse().unwrap()).collect()
    }

    /// How often its writes went on after that.
    pub(crate) fn thawed(&self) -> usize {
        self.lines("thawed").len()
    }

    /// Did its power button end it?
    pub(crate) fn was_told_to_stop(&self) -> bool {
        !self.lines("off").is_empty()
    }
}

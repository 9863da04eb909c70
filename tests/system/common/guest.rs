//! A Linux guest (tests/lab/guest.init) that counts in memory, writes numbered records to its disk, reports both on its
//! serial port, and shuts down on its power button.

use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use super::process::{run, wait_until};
use super::{World, exists};

/// The serial log of one guest.
pub(crate) struct Guest {
    log: PathBuf,
}

/// A boot, and what was on the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Boot {
    /// Unique for each boot.
    pub id: String,
    /// Number of the last record, from the head sector.
    pub head: u64,
    /// Number of consecutive intact records from the first one on.
    pub whole: u64,
}

/// A periodic line of a running guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Heartbeat {
    /// Same as [`Boot::id`].
    pub boot: String,
    /// A counter in the guest's memory.
    pub count: u64,
    /// Number of the last record written.
    pub head: u64,
}

impl World {
    /// Makes `snapdeck sandbox new` create sandboxes with this guest, by a domain template in the settings.
    pub(crate) fn use_guest(&self) {
        self.use_guest_with("");
    }

    /// Same as [`World::use_guest`], with additional kernel arguments (tests/lab/guest.init).
    pub(crate) fn use_guest_with(&self, arguments: &str) {
        let dir = self.dir.display();
        let log = format!("<serial type='file'><source path='{dir}/{{{{id}}}}.log' append='on'/>");
        self.use_guest_on(arguments, &log);
    }

    /// Same as [`World::use_guest`], with a serial port that can be attached to and without a log.
    pub(crate) fn use_guest_with_console(&self) {
        self.use_guest_on("", "<serial type='pty'>");
    }

    /// `serial` is the beginning of the element of the serial port.
    fn use_guest_on(&self, arguments: &str, serial: &str) {
        let kernel = concat!(env!("CARGO_MANIFEST_DIR"), "/.lab/guest");
        assert!(exists(kernel), "no guest: run the tests with `make test`");
        let template = self.dir.join("guest.xml");
        std::fs::write(
            &template,
            format!(
                "<domain type='{{{{accel}}}}'><name>{{{{id}}}}</name>\n\
                 <memory unit='b'>{{{{memory_bytes}}}}</memory><vcpu>{{{{cpus}}}}</vcpu>\n\
                 <os><type arch='x86_64' machine='q35'>hvm</type><kernel>{kernel}/kernel</kernel>\n\
                 <initrd>{kernel}/initrd</initrd><cmdline>console=ttyS0 quiet panic=-1 {arguments} </cmdline></os>\n\
                 <features><acpi/></features>{{{{cpu}}}}<devices>\n\
                 <disk type='file' device='disk'><driver name='qemu' type='qcow2' discard='unmap'/>\n\
                 <source file='{{{{disk}}}}'/><target dev='vda' bus='virtio'/></disk>\n\
                 {serial}<target port='0'/></serial>\n\
                 <channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>\n\
                 <memballoon model='virtio'><stats period='2'/></memballoon>\n\
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

    /// Returns the serial log of a sandbox.
    pub(crate) fn guest(&self, id: &str) -> Guest {
        Guest {
            log: self.dir.join(format!("{id}.log")),
        }
    }
}

/// Asserts that an image of a guest with `scatter` has every record up to its head; returns the head.
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
        let position = 1_048_576 + 128 * (record * 7919 % 1000);
        // The record after the head may be written; it overwrites an older one.
        let next = (record + 1000 == head + 1).then(|| format!("record {}", head + 1));
        let found = sector(position);
        let is_intact = found == format!("record {record}") || Some(&found) == next.as_ref();
        assert!(is_intact, "record {record} is {found:?}, head {head}");
    }
    head
}

impl Guest {
    /// Returns the log lines `guest WORD ...`, without those two words.
    fn lines(&self, word: &str) -> Vec<Vec<String>> {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        // The last line may be incomplete.
        let (whole, _) = text.rsplit_once('\n').unwrap_or_default();
        let lines = whole.lines().map(|line| line.split_whitespace());
        lines
            .filter_map(|mut words| {
                let matches = words.next() == Some("guest") && words.next() == Some(word);
                matches.then(|| words.map(str::to_owned).collect())
            })
            .collect()
    }

    /// Returns its boots so far.
    pub(crate) fn boots(&self) -> Vec<Boot> {
        let boot = |words: Vec<String>| Boot {
            id: words[0].clone(),
            head: words[2].parse().unwrap(),
            whole: words[4].parse().unwrap(),
        };
        self.lines("boot").into_iter().map(boot).collect()
    }

    /// Returns its periodic lines so far.
    pub(crate) fn heartbeats(&self) -> Vec<Heartbeat> {
        let alive = |words: Vec<String>| Heartbeat {
            boot: words[0].clone(),
            count: words[1].parse().unwrap(),
            head: words[2].parse().unwrap(),
        };
        self.lines("alive").into_iter().map(alive).collect()
    }

    /// Waits for a periodic line of the boot after the first `boots`.
    #[track_caller]
    pub(crate) fn wait_for_heartbeat(&self, boots: usize) -> Heartbeat {
        let last = || self.heartbeats().pop();
        wait_until("the guest is alive", || {
            let at = self.boots().into_iter().nth(boots);
            at.zip(last()).is_some_and(|(at, last)| last.boot == at.id)
        });
        last().unwrap()
    }

    /// Waits for a periodic line after `before`; returns it.
    #[track_caller]
    pub(crate) fn wait_for_heartbeat_after(&self, before: &Heartbeat) -> Heartbeat {
        let last = || self.heartbeats().pop().unwrap();
        wait_until("the guest continues", || last().count > before.count);
        last()
    }

    /// Returns the last record written at each freeze of its file systems.
    pub(crate) fn freezes(&self) -> Vec<u64> {
        let frozen = self.lines("frozen").into_iter();
        frozen.map(|words| words[1].parse().unwrap()).collect()
    }

    /// Returns the number of thaws.
    pub(crate) fn thaw_count(&self) -> usize {
        self.lines("thawed").len()
    }

    /// Returns whether its power button was pressed.
    pub(crate) fn was_power_button_pressed(&self) -> bool {
        !self.lines("off").is_empty()
    }
}

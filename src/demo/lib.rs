//! The environment of `snapdeck demo`: an S3 server and libvirt's QEMU driver in this process, a base image and three
//! sandboxes based on it, all in one temporary directory.

mod s3_server;

use std::fs::Permissions;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use snapdeck_bucket::Bucket;
use snapdeck_host::Host;
use snapdeck_model::settings::{
    Accel, BucketSettings, ConsoleSettings, Credentials, Firmware, HostSettings, JobSettings,
    Network, ObjectStorage, PullSettings, PushSettings, SandboxSettings, Settings, TransferRoute,
    TrustedChecksums,
};
use snapdeck_model::{
    BufferPool, Error, Kind, Method, ProgressCell, Result, SandboxId, SnapshotName,
};
use snapdeck_process::tool_command;
use snapdeck_settings::DEFAULT_DOMAIN_XML;

/// Programs and their Debian packages.
const PROGRAMS: [(&str, &str); 2] = [
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("qemu-img", "qemu-utils"),
];
/// The embedded driver would log to the terminal.
const LIBVIRT_LOG_ENV: (&str, &str) = ("LIBVIRT_LOG_OUTPUTS", "4:file:/dev/null");
const BUCKET_NAME: &str = "demo";
const BASE_NAME: &str = "winserver-base";
/// Only in the bucket, so that it can be pulled.
const TOOLS_NAME: &str = "winserver-tools-v1";
/// Random bytes in the images, enough to see progress.
const BASE_BYTES: u64 = 256 << 20;
const TOOLS_BYTES: u64 = 96 << 20;
const DISK_BYTES: u64 = 4 << 30;
/// Name, and whether it is started and paused.
const SANDBOXES: [(&str, bool, bool); 3] = [
    ("web-01", true, false),
    ("build-02", false, false),
    ("test-03", true, true),
];
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(10);

/// Kills the guests and removes the directory when its stdin is closed, also because this process was killed. Retries,
/// because libvirt writes files while its guests end.
const CLEANER_SCRIPT: &str = r#"
trap '' HUP INT TERM
cd /
read -r dir || exit 1
while read -r _; do :; done
for file in "$dir"/host/run/qemu/*.pid; do
  pid=$(cat "$file")
  tr '\0' ' ' <"/proc/$pid/cmdline" | grep -qF "$dir" && kill -9 "$pid"
done
tries=0
while ! rm -rf -- "$dir" || [ -e "$dir" ]; do
  tries=$((tries + 1))
  [ $tries -lt 50 ] || exit 1
  sleep 0.1
done
"#;

/// A running demo environment.
pub struct DemoEnvironment {
    dir: PathBuf,
    settings: Settings,
    /// Keeps a connection open: the embedded driver may stop when the last one is closed.
    host: Host,
    cleaner: Child,
}

/// Restarts this program with libvirt's log off, which only an environment variable can do.
///
/// # Errors
/// `Failed` if it cannot be restarted.
#[expect(clippy::disallowed_methods, reason = "libvirt reads the environment")]
pub fn reexec_with_quiet_libvirt() -> Result<()> {
    if std::env::var_os(LIBVIRT_LOG_ENV.0).is_some() {
        return Ok(());
    }
    let failed =
        |error| Error::new(Kind::Failed, "cannot restart snapdeck for the demo").with_cause(error);
    let program = std::env::current_exe().map_err(failed)?;
    let error = Command::new(program)
        .args(std::env::args_os().skip(1))
        .env(LIBVIRT_LOG_ENV.0, LIBVIRT_LOG_ENV.1)
        .exec();
    Err(failed(error))
}

impl DemoEnvironment {
    /// Creates the environment in about 2 s, with the user's settings of the `console`. Sandboxes are started in the
    /// background: the first start of QEMU on a machine takes some seconds.
    ///
    /// # Errors
    /// `Failed`, with the missing system package if any; the directory is removed then.
    pub async fn create(console: ConsoleSettings) -> Result<Self> {
        check_programs()?;
        let dir = tempfile::Builder::new()
            .prefix("snapdeck-demo-")
            .tempdir_in(short_temp_dir())
            .map_err(|error| demo_error("create its directory").with_cause(error))?
            .keep();
        let cleaner = spawn_cleaner(&dir)?;
        let keys = Credentials {
            access_key_id: "demo".into(),
            secret_access_key: random_secret()?,
        };
        for part in ["host/etc", "snapshots", "sandboxes", "nvram", "temp"] {
            create_dir(&dir.join(part))?;
        }
        create_dir(&dir.join("s3").join(BUCKET_NAME))?;
        let endpoint = s3_server::serve(&dir.join("s3"), &keys).await?;
        let host = build_host_settings(&dir)?;
        let demo = Self {
            host: Host::new(host.clone())?,
            settings: build_settings(host, format!("http://{endpoint}"), keys, console),
            dir,
            cleaner,
        };
        demo.populate().await?;
        Ok(demo)
    }

    /// Returns the settings of the environment.
    pub fn settings(&self) -> Settings {
        self.settings.clone()
    }

    /// Returns its directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Kills the guests and removes the directory.
    ///
    /// # Errors
    /// `Failed` if that takes more than 10 s.
    pub async fn shut_down(mut self) -> Result<()> {
        drop(self.cleaner.stdin.take());
        let mut cleaner = self.cleaner;
        let status = tokio::task::spawn_blocking(move || cleaner.wait());
        match tokio::time::timeout(SHUTDOWN_TIMEOUT, status).await {
            Ok(Ok(Ok(status))) if status.success() => Ok(()),
            _ => Err(demo_error("clean up").hint(format!("remove {} by hand", self.dir.display()))),
        }
    }

    async fn populate(&self) -> Result<()> {
        let host = &self.host;
        std::fs::write(self.dir.join("host/etc/qemu.conf"), build_qemu_conf())
            .map_err(|error| demo_error("write qemu.conf").with_cause(error))?;
        let base = host.snapshot_path(&BASE_NAME.parse()?);
        let tools = format!("{}/{TOOLS_NAME}.qcow2", host.settings().temp_dir);
        let (images, inventory) = tokio::join!(
            async {
                create_image(&self.dir, &base, BASE_BYTES).await?;
                // As a pull leaves it, for the health checks.
                std::fs::set_permissions(&base, Permissions::from_mode(0o644))
                    .map_err(|error| demo_error("create an image").with_cause(error))?;
                create_image(&self.dir, &tools, TOOLS_BYTES).await
            },
            // The start of libvirt takes a moment.
            host.inventory().scan(),
        );
        images?;
        inventory
            .map_err(|error| error.hint("check that libvirt-daemon-driver-qemu is installed"))?;
        let name: SnapshotName = TOOLS_NAME.parse()?;
        self.upload(host, &tools, &name).await?;
        host.fs().remove_file(&tools).await?;
        let mut starts = Vec::new();
        for (name, is_started, is_paused) in SANDBOXES {
            let id: SandboxId = name.parse()?;
            let disk = format!("{}/{id}.qcow2", host.settings().sandboxes_dir);
            run_qemu_img(&[
                "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", &base, &disk,
            ])
            .await?;
            host.sandboxes().define(domain_xml(&id, &disk)).await?;
            if is_started {
                starts.push((id, is_paused));
            }
        }
        let host = host.clone();
        tokio::spawn(async move {
            for (id, is_paused) in starts {
                if let Err(error) = start_sandbox(&host, &id, is_paused).await {
                    tracing::error!("cannot start the demo sandbox {id}: {error}");
                }
            }
        });
        Ok(())
    }

    async fn upload(&self, host: &Host, image: &str, name: &SnapshotName) -> Result<()> {
        let reader = host.fs().open_reader(image).await?;
        let bucket = Bucket::new(&self.settings.bucket);
        let (progress, cancel) = (ProgressCell::default(), CancellationToken::new());
        let buffers = BufferPool::default();
        let read = |offset, length| reader.read_at(&buffers, offset, length);
        bucket
            .upload(name, reader.size_bytes(), read, false, &progress, &cancel)
            .await
            .map(|_| ())
    }
}

async fn start_sandbox(host: &Host, id: &SandboxId, is_paused: bool) -> Result<()> {
    host.sandboxes().start(id).await?;
    if is_paused {
        host.sandboxes().suspend(id).await?;
    }
    Ok(())
}

fn demo_error(action: &str) -> Error {
    Error::new(Kind::Failed, format!("the demo cannot {action}"))
}

fn create_dir(path: &Path) -> Result<()> {
    std::fs::create_dir_all(path)
        .map_err(|error| demo_error(&format!("create {}", path.display())).with_cause(error))
}

#[expect(clippy::disallowed_methods, reason = "a front end may read PATH")]
fn check_programs() -> Result<()> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let missing: Vec<&str> = PROGRAMS
        .into_iter()
        .filter(|(program, _)| !std::env::split_paths(&path).any(|dir| dir.join(program).is_file()))
        .map(|(_, package)| package)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(demo_error("start")
        .with_cause(format!("missing: {}", missing.join(", ")))
        .hint(format!(
            "install it: apt-get install {} libvirt-daemon-driver-qemu",
            missing.join(" ")
        )))
}

/// Unix sockets are created in the directory of the demo, and their paths are limited to 107 bytes.
fn short_temp_dir() -> PathBuf {
    let temp_dir = std::env::temp_dir();
    if temp_dir.as_os_str().len() <= 24 {
        temp_dir
    } else {
        "/tmp".into()
    }
}

fn spawn_cleaner(dir: &Path) -> Result<Child> {
    use std::io::Write;
    let spawn = || -> std::io::Result<Child> {
        let mut child = tool_command("sh")
            .args(["-c", CLEANER_SCRIPT, "snapdeck-demo-cleaner"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()?;
        if let Some(stdin) = &mut child.stdin {
            writeln!(stdin, "{}", dir.display())?;
        }
        Ok(child)
    };
    spawn().map_err(|error| {
        let _ = std::fs::remove_dir_all(dir);
        demo_error("start its cleaner").with_cause(error)
    })
}

fn random_secret() -> Result<String> {
    let mut bytes = [0; 12];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut random| random.read_exact(&mut bytes))
        .map_err(|error| demo_error("create a key").with_cause(error))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn build_host_settings(dir: &Path) -> Result<HostSettings> {
    let path = |part: &str| format!("{}/{part}", dir.display());
    let (uid, gid) = (nix::unistd::getuid(), nix::unistd::getgid());
    Ok(HostSettings {
        name: "demo".parse()?,
        uri: format!("qemu:///embed?root={}", path("host")),
        snapshots_dir: path("snapshots"),
        sandboxes_dir: path("sandboxes"),
        nvram_dir: path("nvram"),
        owner: format!("{uid}:{gid}"),
        temp_dir: path("temp"),
        reconnect_timeout: Duration::ZERO,
        running_methods: vec![Method::Backup, Method::Copy, Method::Convert],
        transfer: TransferRoute::Relay,
        bucket_endpoint: None,
        unattended: Duration::ZERO,
        max_bytes_per_sec: 0,
        organizations: Vec::new(),
    })
}

fn build_settings(
    host: HostSettings,
    endpoint: String,
    keys: Credentials,
    console: ConsoleSettings,
) -> Settings {
    Settings {
        hosts: vec![host],
        bucket: BucketSettings {
            name: Some(BUCKET_NAME.into()),
            prefix: "snapshots/".into(),
            organizations: Vec::new(),
            endpoint: Some(endpoint),
            region: Some("us-east-1".into()),
            profile: None,
            credentials: Some(keys),
            trusted_checksums: TrustedChecksums::Any,
            storage: ObjectStorage::default(),
        },
        push: PushSettings {
            zstd_enabled: false,
        },
        pull: PullSettings {
            check_shared_blocks: true,
        },
        sandbox: SandboxSettings {
            accel: Accel::Qemu,
            cpus: 1,
            memory_bytes: 64 << 20,
            firmware: Firmware::Bios,
            network: Network::None,
            template: DEFAULT_DOMAIN_XML.to_owned(),
            stop_timeout: Duration::from_secs(60),
        },
        jobs: JobSettings { max_parallel: 4 },
        console,
    }
}

/// Runs QEMU as the current user, without features that need root.
fn build_qemu_conf() -> String {
    let ids = format!(
        "user = \"+{}\"\ngroup = \"+{}\"\n",
        nix::unistd::getuid(),
        nix::unistd::getgid()
    );
    // Separate VNC ports: two libvirts that search for free ports at the same time may find the same one.
    let first = 5900 + std::process::id() % 40 * 100;
    let ports = format!(
        "remote_display_port_min = {first}\nremote_display_port_max = {}\n",
        first + 99
    );
    ids + &ports
        + "security_driver = \"none\"\nremember_owner = 0\nnamespaces = []\ncgroup_controllers = []\n\
           stdio_handler = \"file\"\n"
}

/// A guest that runs only its firmware, in a real QEMU process that locks its disk.
fn domain_xml(id: &SandboxId, disk: &str) -> String {
    format!(
        "<domain type='qemu'><name>{id}</name><memory unit='MiB'>64</memory><vcpu>1</vcpu>\
         <os><type arch='x86_64' machine='pc'>hvm</type></os><devices>\
         <disk type='file' device='disk'><driver name='qemu' type='qcow2' discard='unmap'/>\
         <source file='{disk}'/><target dev='vda' bus='virtio'/></disk>\
         <graphics type='vnc' autoport='yes' listen='127.0.0.1'/></devices></domain>"
    )
}

/// Creates a standalone image with `bytes` of random data.
async fn create_image(dir: &Path, path: &str, bytes: u64) -> Result<()> {
    let raw = dir.join("temp/random.raw");
    let raw_file = raw.clone();
    tokio::task::spawn_blocking(move || -> std::io::Result<()> {
        let mut file = std::fs::File::create(&raw_file)?;
        std::io::copy(
            &mut std::fs::File::open("/dev/urandom")?.take(bytes),
            &mut file,
        )?;
        file.set_len(DISK_BYTES)
    })
    .await
    .map_err(|error| demo_error("create an image").with_cause(error))?
    .map_err(|error| demo_error("create an image").with_cause(error))?;
    let raw = raw.display().to_string();
    run_qemu_img(&["convert", "-q", "-f", "raw", "-O", "qcow2", &raw, path]).await?;
    std::fs::remove_file(raw).map_err(|error| demo_error("create an image").with_cause(error))
}

async fn run_qemu_img(args: &[&str]) -> Result<()> {
    let mut command = tokio::process::Command::from(tool_command("qemu-img"));
    command.args(args).kill_on_drop(true).stdin(Stdio::null());
    let output = tokio::time::timeout(Duration::from_secs(120), command.output()).await;
    match output {
        Ok(Ok(output)) if output.status.success() => Ok(()),
        Ok(Ok(output)) => {
            Err(demo_error("run qemu-img").with_cause(String::from_utf8_lossy(&output.stderr)))
        }
        Ok(Err(error)) => Err(demo_error("run qemu-img").with_cause(error)),
        Err(_) => Err(demo_error("run qemu-img").with_cause("it timed out")),
    }
}

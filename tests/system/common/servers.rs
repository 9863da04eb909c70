//! S3 servers of other kinds than the lab's, each a process of its own with the bucket of the lab; killed on drop.

use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region};

use super::process::wait_until;
use super::{World, lab};

/// A running server.
pub(crate) struct StoreServer {
    child: Child,
    pub endpoint: String,
}

impl Drop for StoreServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns a program of the lab's Python environment.
fn program(name: &str) -> PathBuf {
    Path::new(&lab("SNAPDECK_LAB_S5CMD")).with_file_name(name)
}

fn start(name: &str, args: &[&str], port: u16, path: &str) -> StoreServer {
    let child = Command::new("setpriv")
        .args(["--pdeathsig=KILL", "--"])
        .arg(program(name))
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let server = StoreServer {
        child,
        endpoint: format!("http://127.0.0.1:{port}{path}"),
    };
    wait_until("the store listens", || {
        TcpStream::connect(("127.0.0.1", port)).is_ok()
    });
    server
}

fn free_port() -> u16 {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    socket.local_addr().unwrap().port()
}

impl StoreServer {
    /// Returns a client other than snapdeck's.
    pub(crate) fn client(&self) -> aws_sdk_s3::Client {
        let config = aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .endpoint_url(&self.endpoint)
            .region(Region::new("us-east-1"))
            .force_path_style(true)
            .credentials_provider(Credentials::new("lab", "lab-secret", None, None, "lab"))
            .build();
        aws_sdk_s3::Client::from_conf(config)
    }
}

impl World {
    /// Starts `rclone serve s3`, below the path of a URL, and uses it.
    pub(crate) fn use_rclone(&self, path: &str) -> StoreServer {
        let dir = self.dir.join("rclone");
        std::fs::create_dir_all(dir.join(lab("SNAPDECK_LAB_BUCKET"))).unwrap();
        let (port, config) = (free_port(), self.dir.join("rclone.conf"));
        std::fs::write(&config, "").unwrap();
        let (address, config) = (
            format!("127.0.0.1:{port}"),
            config.to_str().unwrap().to_owned(),
        );
        let args = [
            "serve",
            "s3",
            dir.to_str().unwrap(),
            "--addr",
            &address,
            "--baseurl",
            path,
            "--config",
            &config,
        ];
        let server = start("rclone", &args, port, path);
        self.reconfigure(&lab("SNAPDECK_LAB_S3"), &server.endpoint);
        server
    }

    /// Starts moto, with an empty bucket, and uses it.
    pub(crate) fn use_moto(&self) -> StoreServer {
        let port = free_port();
        let args = ["-H", "127.0.0.1", "-p", &port.to_string()];
        let server = start("moto_server", &args, port, "");
        self.reconfigure(&lab("SNAPDECK_LAB_S3"), &server.endpoint);
        server
    }

    /// Runs the whole life of a snapshot in the store that is in use.
    pub(crate) fn live_in_store(&self) {
        let base = self.snapshot("base", 20);
        std::fs::set_permissions(&base, std::os::unix::fs::PermissionsExt::from_mode(0o644))
            .unwrap();
        let id = self.sandbox("vm", "base", super::State::Off);
        self.snapdeck(&["upload", "base"]).ok();
        self.snapdeck(&["push", &id, "app"]).ok();
        self.snapdeck(&["push", &id, "app", "--overwrite"]).ok();
        self.snapdeck(&["note", "app", "golden", "--bucket"]).ok();
        let listed = self.snapdeck(&["objects"]).ok();
        assert!(
            listed.stdout.contains("app") && listed.stdout.contains("base"),
            "{listed:?}"
        );
        self.snapdeck(&["pull", "app"]).ok();
        assert!(super::same_disk(
            &self.snapshot_path("app"),
            &self.disk("vm")
        ));
        self.snapdeck(&["verify", "app"]).ok();
        self.snapdeck(&["push", &id, "app"]).failed(4, &["exists"]);
        self.snapdeck(&["remove", "app", "--bucket"]).ok();
        self.snapdeck(&["objects", "--json"]).ok();
        self.snapdeck(&["pull", "app", "--overwrite"])
            .failed(3, &["app"]);
    }
}

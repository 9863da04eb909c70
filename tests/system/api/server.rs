//! A running `snapdeck serve`, called with curl.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use serde_json::Value;

use crate::common::{CommandOutput, World, signal, wait_for_exit, wait_until};

pub(crate) const TOKEN: &str = "a-token-of-the-tests";

/// A server; killed on drop.
pub(crate) struct Api {
    child: Option<Child>,
    /// `http://127.0.0.1:PORT`
    pub base: String,
    pub dir: PathBuf,
    log: Arc<Mutex<String>>,
}

#[derive(Debug)]
pub(crate) struct HttpResponse {
    pub status: u16,
    headers: String,
    pub body: String,
}

impl HttpResponse {
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Returns the value of a header; empty if it is missing.
    pub(crate) fn header(&self, name: &str) -> &str {
        let mut headers = self.headers.lines().filter_map(|line| line.split_once(':'));
        let found = headers.find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.trim()).unwrap_or_default()
    }

    #[track_caller]
    pub(crate) fn expect_status(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{self:?}");
        self.json()
    }

    /// Asserts an error of that status and code whose message contains all of `words`.
    #[track_caller]
    pub(crate) fn failed(self, status: u16, code: &str, words: &[&str]) -> Value {
        let json = self.expect_status(status);
        assert_eq!(json["statusCode"], status, "{json}");
        assert_eq!(json["code"], code, "{json}");
        for key in ["path", "method", "timestamp"] {
            assert!(json[key].is_string(), "{key}: {json}");
        }
        assert!(json.get("hint").is_some(), "{json}");
        let message = json["message"].as_str().unwrap();
        for word in words {
            assert!(message.contains(word), "{word:?} is not in {message:?}");
        }
        json
    }
}

impl Api {
    /// Starts a server with a token on a free port and waits until it is ready.
    pub(crate) fn start(world: &World) -> Self {
        let api = Self::start_with(world, &[], &[("SNAPDECK_API_TOKEN", TOKEN)]);
        wait_until("the API is ready", || api.get("/readyz").status == 200);
        api
    }

    pub(crate) fn start_with(world: &World, args: &[&str], variables: &[(&str, &str)]) -> Self {
        let serve = [&["serve", "--listen", "127.0.0.1:0"], args].concat();
        let mut child = world
            .command(&serve)
            .envs(variables.iter().copied())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap();
        let log: Arc<Mutex<String>> = Arc::default();
        let (stderr, shared) = (child.stderr.take().unwrap(), log.clone());
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                shared.lock().unwrap().push_str(&format!("{line}\n"));
            }
        });
        let mut api = Self {
            child: Some(child),
            base: String::new(),
            dir: world.dir.clone(),
            log,
        };
        wait_until("the API logs its address", || {
            let log = api.log();
            let at = log
                .split("serving host ")
                .nth(1)
                .and_then(|rest| rest.split(" on ").nth(1));
            if let Some((base, _)) = at.and_then(|at| at.split_once('\n')) {
                api.base = base.to_owned();
            }
            !api.base.is_empty() || api.child.as_mut().unwrap().try_wait().unwrap().is_some()
        });
        assert!(!api.base.is_empty(), "{}", api.log());
        api
    }

    /// Returns its standard error so far.
    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Returns `127.0.0.1:PORT`.
    pub(crate) fn address(&self) -> &str {
        self.base.split("//").nth(1).unwrap()
    }

    pub(crate) fn signal(&self, name: &str) {
        signal(self.child.as_ref().unwrap(), name);
    }

    #[track_caller]
    pub(crate) fn wait_for_exit(mut self) -> CommandOutput {
        wait_for_exit(self.child.take().unwrap())
    }

    /// Returns a curl command with the token and `args`.
    pub(crate) fn curl(&self, path: &str, args: &[&str]) -> Command {
        let mut command = Command::new("curl");
        command
            .args([
                "-sS",
                "-i",
                "-m",
                "100",
                "-H",
                &format!("Authorization: Bearer {TOKEN}"),
            ])
            .args(args)
            .arg(format!("{}{path}", self.base))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    #[track_caller]
    pub(crate) fn call(&self, path: &str, args: &[&str]) -> HttpResponse {
        send(self.curl(path, args))
    }

    #[track_caller]
    pub(crate) fn get(&self, path: &str) -> HttpResponse {
        self.call(path, &[])
    }

    #[track_caller]
    pub(crate) fn post(&self, path: &str, body: &Value) -> HttpResponse {
        self.call(path, &["-d", &body.to_string()])
    }

    /// Posts without waiting for the job; returns its number.
    #[track_caller]
    pub(crate) fn begin(&self, path: &str, body: &Value) -> u64 {
        let response = self.call(
            path,
            &["-H", "Prefer: respond-async", "-d", &body.to_string()],
        );
        response.expect_status(202)["id"].as_u64().unwrap()
    }

    pub(crate) fn state(&self, job: u64) -> String {
        let json = self.get(&format!("/jobs/{job}")).expect_status(200);
        json["state"].as_str().unwrap().to_owned()
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Runs curl and parses the response.
#[track_caller]
pub(crate) fn send(mut command: Command) -> HttpResponse {
    let ran = wait_for_exit(command.spawn().unwrap());
    let message = ran.stdout.split_once("\r\n\r\n");
    let (headers, body) = message.unwrap_or_else(|| panic!("{ran:?}"));
    let status = headers.split_whitespace().nth(1).unwrap();
    HttpResponse {
        status: status.parse().unwrap(),
        headers: headers.to_owned(),
        body: body.to_owned(),
    }
}

//! A small process on the host that outlives us: what must not stay behind is taken back even when we are
//! killed in the middle.

use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin};

use super::command::{command, start};
use crate::model::{Error, HostName, Kind, Result, SandboxId};

/// For the guard's start and its end.
const DEADLINE: Duration = Duration::from_secs(10);

/// Told what to guard over stdin, a line each, so that its own arguments name nothing. The end of stdin
/// without `release` means that whoever started it is gone. In that order: our qemu-img is ended (it is known
/// by the temporary directory in its arguments), the sandbox goes on, the directory goes.
const SCRIPT: &str = r#"
trap '' HUP INT TERM
cd /
dir= uri= id= released=
IFS= read -r dir && IFS= read -r uri && IFS= read -r id || exit 1
if [ -n "$id" ] && ! command -v virsh >/dev/null; then echo virsh; exit 1; fi
echo ready
while IFS= read -r word; do [ "$word" = release ] && exit 0; done
for file in $(printf '%s' "$dir" | grep -alsF -f - /proc/[0-9]*/cmdline); do
  pid=${file#/proc/} pid=${pid%/cmdline} comm=
  read -r comm <"/proc/$pid/comm" && [ "$comm" = qemu-img ] && kill -9 "$pid"
done
tries=0
while [ -n "$id" ] && [ $tries -lt 60 ]; do
  timeout 20 virsh -c "$uri" resume --domain "$id" && break
  state=$(timeout 20 virsh -c "$uri" domstate --domain "$id") && [ "$state" != paused ] && break
  tries=$((tries + 1))
  sleep 1
done
rm -rf -- "$dir"
"#;

/// A guard at its post. Dropped without [`Guard::release`], it does what it is there for.
pub struct Guard {
    host: HostName,
    child: Child,
    line: ChildStdin,
}

impl Guard {
    /// Posts a guard over `dir` and, where given, over the pause of a sandbox (its libvirt's URI and id).
    ///
    /// # Errors
    /// `Failed` where it does not come up: nothing may be paused then.
    pub(super) async fn post(
        host: &HostName,
        dir: &str,
        resume: Option<(&str, &SandboxId)>,
    ) -> Result<Self> {
        let failed = || {
            Error::new(
                Kind::Failed,
                format!("cannot post a guard for {dir} on host {host}"),
            )
        };
        let mut command = command(&["sh", "-c", SCRIPT, "snapdeck-guard"]);
        command
            .stdin(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(false);
        let mut child = start(host, "sh", &mut command)?;
        let (Some(mut line), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(failed());
        };
        let (uri, id) = resume.map_or(("", ""), |(uri, id)| (uri, id.as_str()));
        let orders = format!("{dir}\n{uri}\n{id}\n");
        let mut said = String::new();
        let up = async {
            line.write_all(orders.as_bytes()).await?;
            BufReader::new(stdout).read_line(&mut said).await
        };
        match tokio::time::timeout(DEADLINE, up).await {
            Ok(Ok(_)) if said.trim() == "ready" => Ok(Self {
                host: host.clone(),
                child,
                line,
            }),
            Ok(Ok(_)) if said.trim() == "virsh" => Err(failed()
                .because("virsh is not installed")
                .hint("install libvirt-clients there: without it nobody could let the sandbox go on if snapdeck were killed")),
            Ok(Ok(_)) => Err(failed().because("it ended at once")),
            Ok(Err(error)) => Err(failed().because(error)),
            Err(_) => Err(failed().because("it did not come up")),
        }
    }

    /// Lets the guard go, its work not needed.
    ///
    /// # Errors
    /// `Failed` where it was gone already or does not end.
    pub async fn release(mut self) -> Result<()> {
        let ended = async {
            self.line.write_all(b"release\n").await?;
            self.child.wait().await
        };
        let cause = match tokio::time::timeout(DEADLINE, ended).await {
            Ok(Ok(status)) if status.success() => return Ok(()),
            Ok(Ok(status)) => format!("it ended early ({status})"),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "it does not end".into(),
        };
        Err(Error::new(
            Kind::Failed,
            format!("cannot release the guard on host {}", self.host),
        )
        .because(cause))
    }
}

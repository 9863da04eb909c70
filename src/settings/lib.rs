//! Settings in layers, later wins: `config/default.toml` compiled in, the user's file, the
//! environment, flags. The result is the plain structs of [`snapdeck_model::settings`] and a
//! [`Report`] of where each value came from.

mod check;
mod document;
mod environment;
mod layer;
mod report;
mod text;

use std::ffi::OsString;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use directories::ProjectDirs;

pub use layer::Origin;
pub use report::Report;
pub use text::SourceText;

use layer::{Layer, Setting, Table, Value, find_key, invalid_setting};
use snapdeck_model::settings::{
    Accel, BucketSettings, ConsoleSettings, Credentials, Firmware, HostSettings, JobSettings,
    Network, NotificationMethod, PictureStyle, PushSettings, SandboxSettings, Settings,
};
use snapdeck_model::{Error, Kind, Result};

/// The defaults, every key commented.
pub const DEFAULT_CONFIG: &str = include_str!("../../config/default.toml");

/// The domain XML of a new sandbox, with placeholders.
pub const DEFAULT_DOMAIN_XML: &str = include_str!("../../config/sandbox.xml");

/// Longest file of settings, in bytes; anything longer is something else.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// Settings given on the command line.
#[derive(Debug, Clone, Default)]
pub struct Flags {
    /// `--config`: the file to read instead of the user's.
    pub config: Option<PathBuf>,
    /// `--uri`: the only host.
    pub uri: Option<String>,
    /// `--bucket-name`.
    pub bucket: Option<String>,
    /// `--prefix`.
    pub prefix: Option<String>,
    /// `--endpoint`.
    pub endpoint: Option<String>,
    /// `--region`.
    pub region: Option<String>,
}

/// Settings in force, and where they came from.
#[derive(Debug, Clone)]
pub struct LoadedSettings {
    /// The settings.
    pub settings: Settings,
    /// What `snapdeck config` prints.
    pub report: Report,
    /// Where the user's `config.toml` is or would be, and so `keymap.toml` and `themes`; `None`: nowhere.
    pub config_dir: Option<PathBuf>,
}

fn project_dirs() -> Option<ProjectDirs> {
    ProjectDirs::from("", "", "snapdeck")
}

/// Path of the user's `config.toml`; `None` where there is no home directory.
pub fn user_config_path() -> Option<PathBuf> {
    project_dirs().map(|dirs| dirs.config_dir().join("config.toml"))
}

/// The directory for what outlives a run but is no setting (logs); `None` where there is no home directory.
pub fn state_dir() -> Option<PathBuf> {
    project_dirs().map(|dirs| {
        dirs.state_dir()
            .unwrap_or_else(|| dirs.data_local_dir())
            .to_owned()
    })
}

/// The text of the API's token: that of `file`, else that of `SNAPDECK_API_TOKEN`; `None` where there is neither.
///
/// # Errors
/// `InvalidInput` where it cannot be read.
pub fn read_api_token(
    file: Option<&Path>,
    env: &dyn Fn(&str) -> Option<OsString>,
) -> Result<Option<String>> {
    match file {
        Some(path) => read_file("cannot read the API token", path, true),
        None => environment::read_text(env, "SNAPDECK_API_TOKEN"),
    }
}

/// Puts the layers together. `env` answers for environment variables; `user_file` is the file to
/// read where neither flag nor environment names one, and need not exist.
///
/// # Errors
/// `InvalidInput` with the file and line, variable or flag, and the key.
pub fn load(
    flags: &Flags,
    env: &dyn Fn(&str) -> Option<OsString>,
    user_file: Option<&Path>,
) -> Result<LoadedSettings> {
    let mut layer = document::read(DEFAULT_CONFIG, None)?;
    // What a host leaves out is as it is with the default host.
    let host_defaults = layer.hosts.first().cloned().unwrap_or_default();

    let named = flags
        .config
        .clone()
        .or_else(|| environment::read_path(env, "SNAPDECK_CONFIG"));
    let file = named.as_deref().or(user_file);
    let text = file
        .map(|path| read_file("cannot read settings", path, named.is_some()))
        .transpose()?
        .flatten();
    let mut notes = Vec::new();
    let mut hosts_in_file = false;
    if let (Some(path), Some(text)) = (file, &text) {
        let user = document::read(text, Some(path))?;
        hosts_in_file = !user.hosts.is_empty();
        layer.merge(user);
    }
    environment::apply_environment(&mut layer, env, hosts_in_file, &mut notes)?;
    apply_flags(&mut layer, flags)?;
    for host in &mut layer.hosts {
        for (key, default) in &host_defaults {
            host.entry(key).or_insert_with(|| default.clone());
        }
    }
    check_key_pair(&layer)?;
    Ok(LoadedSettings {
        settings: build_settings(&layer)?,
        config_dir: file.and_then(Path::parent).map(Path::to_owned),
        report: Report::new(layer, file.map(Path::to_owned), text.is_some(), notes),
    })
}

/// The file's text; `None` where it is absent and `required` is false. `what` begins the sentence that tells of an
/// error.
///
/// # Errors
/// `InvalidInput` where it cannot be read, is no UTF-8, or is longer than 1 MiB.
pub fn read_file(what: &str, path: &Path, required: bool) -> Result<Option<String>> {
    let shown = path.display();
    let fail = |why: &dyn std::fmt::Display| {
        Error::new(Kind::InvalidInput, format!("{what}: {shown}")).with_cause(why)
    };
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !required => return Ok(None),
        Err(error) => {
            return Err(fail(&error).hint("check the file's path and permissions"));
        }
    };
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| fail(&error))?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(fail(&"it is longer than 1 MiB"));
    }
    match String::from_utf8(bytes) {
        Ok(text) => Ok(Some(text)),
        Err(error) => {
            let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
            let line = good.iter().filter(|byte| **byte == b'\n').count() + 1;
            Err(fail(&format!("line {line} is not UTF-8")))
        }
    }
}

fn apply_flags(layer: &mut Layer, flags: &Flags) -> Result<()> {
    if let Some(uri) = &flags.uri {
        layer.hosts = vec![host_from_uri(uri, &Origin::Flag("--uri"))?];
    }
    for (name, flag, value) in [
        ("name", "--bucket-name", &flags.bucket),
        ("prefix", "--prefix", &flags.prefix),
        ("endpoint", "--endpoint", &flags.endpoint),
        ("region", "--region", &flags.region),
    ] {
        if let (Some(value), Some(key)) = (value, find_key("bucket", name)) {
            layer.set_text(key, value.clone(), Origin::Flag(flag))?;
        }
    }
    Ok(())
}

/// The one host at `uri`, named after the machine in it.
fn host_from_uri(uri: &str, origin: &Origin) -> Result<Table> {
    let mut host = Table::new();
    for (name, text) in [("name", host_name_from_uri(uri)), ("uri", uri.to_owned())] {
        if let Some(key) = find_key("hosts", name) {
            let setting = Setting::new(key, Value::Text(text), origin.clone())?;
            host.insert(key.name, setting);
        }
    }
    Ok(host)
}

/// The machine in a libvirt URI; `local` where it names none.
fn host_name_from_uri(uri: &str) -> String {
    let authority = uri
        .split_once("://")
        .and_then(|(_, rest)| rest.split(['/', '?']).next())
        .unwrap_or_default();
    let machine = authority.rsplit('@').next().unwrap_or_default();
    let machine = match machine.strip_prefix('[') {
        Some(address) => address.split(']').next().unwrap_or_default(),
        None => machine.split(':').next().unwrap_or_default(),
    };
    match machine.replace(':', "-") {
        name if name.is_empty() => "local".to_owned(),
        name => check::parse_host_name(&name).unwrap_or_else(|_| "remote".to_owned()),
    }
}

/// Half a key pair is a slip: no store takes it, and the AWS chain must not be asked for the other half.
fn check_key_pair(layer: &Layer) -> Result<()> {
    let get = |name| layer.get("bucket", name);
    let (there, absent, variable) = match (get("access_key_id"), get("secret_access_key")) {
        (Some(id), None) => (id, "secret_access_key", "AWS_SECRET_ACCESS_KEY"),
        (None, Some(secret)) => (secret, "access_key_id", "AWS_ACCESS_KEY_ID"),
        _ => return Ok(()),
    };
    Err(invalid_setting(
        &there.origin,
        format!("{absent} in [bucket] is missing: a key pair needs both"),
    )
    .hint(format!("set {variable} as well, or neither")))
}

/// The plain structs, from layers that were checked value by value.
fn build_settings(layer: &Layer) -> Result<Settings> {
    let text = |section: &'static str, name: &'static str| match layer.get(section, name) {
        Some(Setting {
            value: Value::Text(text),
            ..
        }) => Some(text.clone()),
        _ => None,
    };
    let parallel = match layer.get("jobs", "parallel").map(|setting| &setting.value) {
        Some(Value::Integer(count)) => usize::try_from(*count).ok(),
        _ => None,
    };
    let credentials = text("bucket", "access_key_id")
        .zip(text("bucket", "secret_access_key"))
        .map(|(access_key_id, secret_access_key)| Credentials {
            access_key_id,
            secret_access_key,
        });
    Ok(Settings {
        hosts: layer.hosts.iter().map(build_host).collect::<Result<_>>()?,
        bucket: BucketSettings {
            name: text("bucket", "name"),
            prefix: text("bucket", "prefix").ok_or_else(|| missing_default("bucket", "prefix"))?,
            endpoint: text("bucket", "endpoint"),
            region: text("bucket", "region"),
            credentials,
        },
        push: PushSettings {
            zstd_enabled: text("push", "compression").as_deref() == Some("zstd"),
        },
        sandbox: build_sandbox(layer)?,
        jobs: JobSettings {
            max_parallel: parallel.ok_or_else(|| missing_default("jobs", "parallel"))?,
        },
        console: build_console(layer)?,
    })
}

fn build_console(layer: &Layer) -> Result<ConsoleSettings> {
    let value = |name| layer.get("console", name).map(|setting| &setting.value);
    let text = |name| match value(name) {
        Some(Value::Text(text)) => Some(text.as_str()),
        _ => None,
    };
    let switch = |name| match value(name) {
        Some(Value::Boolean(on)) => Ok(*on),
        _ => Err(missing_default("console", name)),
    };
    Ok(ConsoleSettings {
        mouse_enabled: switch("mouse")?,
        picture: match text("picture") {
            Some("kitty") => PictureStyle::Kitty,
            Some("sixel") => PictureStyle::Sixel,
            Some("blocks") => PictureStyle::Blocks,
            Some("off") => PictureStyle::Off,
            _ => PictureStyle::Auto,
        },
        viewer: text("viewer").map(str::to_owned),
        theme: text("theme")
            .filter(|name| *name != "auto")
            .map(str::to_owned),
        ascii_only: switch("ascii")?,
        notification: match text("notify") {
            Some("notification") => NotificationMethod::Notification,
            Some("off") => NotificationMethod::Off,
            _ => NotificationMethod::Bell,
        },
        notification_threshold: match value("notify_after_secs") {
            Some(Value::Integer(secs)) => Duration::from_secs(secs.unsigned_abs()),
            _ => return Err(missing_default("console", "notify_after_secs")),
        },
    })
}

fn build_sandbox(layer: &Layer) -> Result<SandboxSettings> {
    let text = |name: &'static str| match layer.get("sandbox", name) {
        Some(Setting {
            value: Value::Text(text),
            ..
        }) => Some(text.as_str()),
        _ => None,
    };
    let count = |name: &'static str| match layer.get("sandbox", name).map(|setting| &setting.value)
    {
        Some(Value::Integer(count)) => Ok(count.unsigned_abs()),
        _ => Err(missing_default("sandbox", name)),
    };
    let template = match (text("template"), layer.get("sandbox", "template")) {
        (Some(path), Some(setting)) => read_template(path, &setting.origin)?,
        _ => DEFAULT_DOMAIN_XML.to_owned(),
    };
    Ok(SandboxSettings {
        accel: match text("accel") {
            Some("kvm") => Accel::Kvm,
            Some("qemu") => Accel::Qemu,
            _ => Accel::Auto,
        },
        cpus: u32::try_from(count("cpus")?).unwrap_or(u32::MAX),
        memory_bytes: count("memory_mib")? << 20,
        firmware: match text("firmware") {
            Some("uefi") => Firmware::Uefi,
            Some("bios") => Firmware::Bios,
            _ => Firmware::SecureUefi,
        },
        network: match text("network") {
            None | Some("none") => Network::None,
            Some(network) => match network.strip_prefix("bridge:") {
                Some(bridge) => Network::Bridge(bridge.to_owned()),
                None => Network::Libvirt(network.to_owned()),
            },
        },
        template,
        stop_timeout: Duration::from_secs(count("stop_timeout_secs")?),
    })
}

/// The text of a user's template.
fn read_template(path: &str, origin: &Origin) -> Result<String> {
    read_file("template in [sandbox]", Path::new(path), true)
        .map(Option::unwrap_or_default)
        .map_err(|error| invalid_setting(origin, error.message()))
}

fn build_host(table: &Table) -> Result<HostSettings> {
    let text = |name: &'static str| match table.get(name) {
        Some(Setting {
            value: Value::Text(text),
            ..
        }) => Ok(text.clone()),
        _ => Err(missing_default("hosts", name)),
    };
    Ok(HostSettings {
        name: text("name")?.parse()?,
        uri: text("uri")?,
        snapshots_dir: text("snapshots_dir")?,
        sandboxes_dir: text("sandboxes_dir")?,
        nvram_dir: text("nvram_dir")?,
        owner: text("owner")?,
        temp_dir: text("temp_dir")?,
        reconnect_timeout: match table.get("reconnect_secs").map(|setting| &setting.value) {
            Some(Value::Integer(secs)) => Duration::from_secs(secs.unsigned_abs()),
            _ => return Err(missing_default("hosts", "reconnect_secs")),
        },
        running_methods: check::parse_methods(&text("running")?)
            .ok_or_else(|| missing_default("hosts", "running"))?,
    })
}

fn missing_default(section: &str, name: &str) -> Error {
    Error::new(
        Kind::Failed,
        format!(
            "the built-in defaults lack {name} in {}",
            layer::heading(section)
        ),
    )
}

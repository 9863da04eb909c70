//! Settings in layers, of which later ones win: `config/default.toml` compiled in, the user's file, the environment,
//! flags. Each layer is TOML, read into the same serde types. The result is the plain structs of
//! [`snapdeck_model::settings`] and a [`Report`] of the origin of each value.

mod document;
mod environment;
mod layer;
mod report;
mod secret_file;
mod setup;
mod text;
mod value;

use std::ffi::OsString;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use directories::ProjectDirs;
use toml::Spanned;

pub use layer::Origin;
pub use report::Report;
pub use secret_file::{read_public_file, read_secret_file};
pub use setup::{
    AwsProfile, Discovery, Setup, SetupAnswers, SetupField, refuse_existing, write_settings_file,
};
pub use text::SourceText;

use layer::{BucketTable, HostTable, Layer, Setting, invalid_setting};
use snapdeck_model::settings::{
    BucketSettings, ConsoleSettings, Credentials, HostSettings, JobSettings, ListColumns,
    ObjectStorage, PullSettings, PushSettings, SandboxSettings, Settings,
};
use snapdeck_model::{Error, HostName, Kind, Result};
use value::{Compression, FilePath, Keyword, NetworkName, Organizations, RunningMethods};

/// The defaults; every key has a comment.
pub const DEFAULT_CONFIG: &str = include_str!("../../config/default.toml");

/// Domain XML of a new sandbox with placeholders.
pub const DEFAULT_DOMAIN_XML: &str = include_str!("../../config/sandbox.xml");

/// Maximum length of a file in bytes.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// Settings of the command line.
#[derive(Debug, Clone, Default)]
pub struct Flags {
    /// `--config`: replaces the user's file.
    pub config: Option<PathBuf>,
    /// `--uri`: replaces all hosts.
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

/// Settings in use and their origins.
#[derive(Debug, Clone)]
pub struct LoadedSettings {
    /// The settings.
    pub settings: Settings,
    /// Output of `snapdeck config`.
    pub report: Report,
    /// Directory of `config.toml`, `keymap.toml` and `themes`, which need not exist.
    pub config_dir: Option<PathBuf>,
    /// The settings file, if there is none yet: a setup can write it.
    pub missing_file: Option<PathBuf>,
    /// Whether the hosts are not the default one.
    pub has_own_hosts: bool,
}

impl LoadedSettings {
    /// Returns whether neither a file nor the environment nor a flag names a host or the bucket.
    pub fn is_unconfigured(&self) -> bool {
        self.missing_file.is_some() && !self.has_own_hosts && self.settings.bucket.name.is_none()
    }
}

fn project_dirs() -> Option<ProjectDirs> {
    ProjectDirs::from("", "", "snapdeck")
}

/// Returns the path of the user's `config.toml`; `None` without a home directory.
pub fn user_config_path() -> Option<PathBuf> {
    project_dirs().map(|dirs| dirs.config_dir().join("config.toml"))
}

/// Returns the directory of logs and state; `None` without a home directory.
pub fn state_dir() -> Option<PathBuf> {
    project_dirs().map(|dirs| {
        dirs.state_dir()
            .unwrap_or_else(|| dirs.data_local_dir())
            .to_owned()
    })
}

/// Returns the token of the API from `file`, else from `SNAPDECK_API_TOKEN`, if any.
///
/// # Errors
/// `InvalidInput` if it cannot be read, or if other users can read or replace the file.
pub fn read_api_token(
    file: Option<&Path>,
    env: &dyn Fn(&str) -> Option<OsString>,
) -> Result<Option<String>> {
    match file {
        Some(path) => {
            let summary = "cannot read the API token";
            let bytes = read_secret_file(summary, path)?;
            String::from_utf8(bytes).map(Some).map_err(|_| {
                Error::new(Kind::InvalidInput, format!("{summary}: {}", path.display()))
                    .with_cause("it is not UTF-8")
            })
        }
        None => environment::read_text(env, "SNAPDECK_API_TOKEN"),
    }
}

/// Loads the settings. `env` returns environment variables; `user_file` is read if neither a flag nor the environment
/// names a file; it need not exist.
///
/// # Errors
/// `InvalidInput` with the file and line, variable or flag, and the key.
pub fn load(
    flags: &Flags,
    env: &dyn Fn(&str) -> Option<OsString>,
    user_file: Option<&Path>,
) -> Result<LoadedSettings> {
    let mut layer = document::read(DEFAULT_CONFIG, &|_| Origin::Default)?;
    let default_host = layer.hosts.first().cloned();

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
    let mut has_hosts_in_file = false;
    if let (Some(path), Some(text)) = (file, &text) {
        let path: Arc<Path> = path.into();
        let user = document::read(text, &|line| Origin::File {
            path: path.clone(),
            line,
        })?;
        has_hosts_in_file = !user.hosts.is_empty();
        layer.merge(user);
    }
    environment::apply_environment(&mut layer, env, has_hosts_in_file, &mut notes)?;
    apply_flags(&mut layer, flags)?;
    let has_own_hosts = layer.hosts.iter().any(|host| {
        let origin = host.as_ref().uri.as_ref().map(|uri| &uri.entry.origin);
        origin.is_some_and(|origin| *origin != Origin::Default)
    });
    let settings = resolve_layer(&mut layer, default_host)?;
    let missing_file = file.filter(|_| text.is_none());
    Ok(LoadedSettings {
        settings,
        config_dir: file.and_then(Path::parent).map(Path::to_owned),
        missing_file: missing_file.map(Path::to_owned),
        has_own_hosts,
        report: Report::new(&layer, file.map(Path::to_owned), text.is_some(), notes),
    })
}

/// Completes the hosts of merged layers, and returns the settings.
fn resolve_layer(layer: &mut Layer, default_host: Option<Spanned<HostTable>>) -> Result<Settings> {
    for host in &mut layer.hosts {
        // A host has the values of the default host for the keys that it leaves out.
        let mut complete = default_host
            .clone()
            .map(Spanned::into_inner)
            .unwrap_or_default();
        complete.merge(std::mem::take(host.get_mut()));
        *host.get_mut() = complete;
    }
    build_settings(layer)
}

/// Reads a file; returns `None` if it does not exist and is not `required`. `summary` is the beginning of an error.
///
/// # Errors
/// `InvalidInput` if it cannot be read, is not UTF-8, or is longer than 1 MiB.
pub fn read_file(summary: &str, path: &Path, required: bool) -> Result<Option<String>> {
    let shown = path.display();
    let fail = |cause: &dyn std::fmt::Display| {
        Error::new(Kind::InvalidInput, format!("{summary}: {shown}")).with_cause(cause)
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
            let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
            let line = valid.iter().filter(|byte| **byte == b'\n').count() + 1;
            Err(fail(&format!("line {line} is not UTF-8")))
        }
    }
}

fn apply_flags(layer: &mut Layer, flags: &Flags) -> Result<()> {
    if let Some(uri) = &flags.uri {
        set_only_host(layer, uri, &Origin::Flag { flag: "--uri" })?;
    }
    for (key, flag, value) in [
        ("name", "--bucket-name", &flags.bucket),
        ("prefix", "--prefix", &flags.prefix),
        ("endpoint", "--endpoint", &flags.endpoint),
        ("region", "--region", &flags.region),
    ] {
        if let Some(value) = value {
            set_bucket_key(layer, key, value, &Origin::Flag { flag })?;
        }
    }
    Ok(())
}

/// Replaces the hosts by the one at `uri`, named after the machine in it.
fn set_only_host(layer: &mut Layer, uri: &str, origin: &Origin) -> Result<()> {
    let quote = |text: &str| toml::Value::from(text).to_string();
    let (name, uri) = (quote(&host_name_from_uri(uri)), quote(uri));
    let text = format!("[[hosts]]\nname = {name}\nuri = {uri}\n");
    layer.merge(document::read(&text, &|_| origin.clone())?);
    Ok(())
}

fn set_bucket_key(layer: &mut Layer, key: &str, value: &str, origin: &Origin) -> Result<()> {
    let text = format!("bucket.{key} = {}", toml::Value::from(value));
    layer.merge(document::read(&text, &|_| origin.clone())?);
    Ok(())
}

/// Returns the machine in a libvirt URI; `local` if it has none.
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
        name if name.parse::<HostName>().is_ok() => name,
        _ => "remote".to_owned(),
    }
}

/// Returns the key pair. Half a pair is an error: the AWS chain must not supply the other half.
fn read_key_pair(bucket: &BucketTable) -> Result<Option<Credentials>> {
    let (half, missing, variable) = match (&bucket.access_key_id, &bucket.secret_access_key) {
        (Some(id), Some(secret)) => {
            return Ok(Some(Credentials {
                access_key_id: id.value.0.clone(),
                secret_access_key: secret.value.0.clone(),
            }));
        }
        (None, None) => return Ok(None),
        (Some(id), None) => (id, "secret_access_key", "AWS_SECRET_ACCESS_KEY"),
        (None, Some(secret)) => (secret, "access_key_id", "AWS_ACCESS_KEY_ID"),
    };
    let cause = format!("{missing} in [bucket] is missing: a key pair needs both");
    Err(invalid_setting(&half.entry.origin, cause)
        .hint(format!("set {variable} as well, or neither")))
}

fn optional<T: Clone + Into<U>, U>(setting: &Option<Setting<T>>) -> Option<U> {
    setting.as_ref().map(|setting| setting.value.clone().into())
}

/// Returns a value that the defaults have.
fn required<T: Clone + Into<U>, U>(setting: &Option<Setting<T>>) -> Result<U> {
    let missing = || Error::new(Kind::Failed, "a key is missing in the built-in defaults");
    optional(setting).ok_or_else(missing)
}

fn required_word<T: Copy>(setting: &Option<Setting<Keyword<T>>>) -> Result<T> {
    required::<Keyword<T>, Keyword<T>>(setting).map(|word| word.0)
}

fn build_settings(layer: &Layer) -> Result<Settings> {
    let (bucket, sandbox, console) = (&layer.bucket, &layer.sandbox, &layer.console);
    let organizations = required::<Organizations, Organizations>(&bucket.organizations)?.0;
    let hosts = layer.hosts.iter();
    let hosts = hosts.map(|host| build_host(host.as_ref(), &organizations));
    let memory_mib: u64 = required(&sandbox.memory_mib)?;
    let parallel: u32 = required(&layer.jobs.parallel)?;
    let template = sandbox.template.as_ref().map(read_template).transpose()?;
    Ok(Settings {
        hosts: hosts.collect::<Result<_>>()?,
        bucket: BucketSettings {
            name: optional(&bucket.name),
            prefix: required(&bucket.prefix)?,
            organizations: organizations.clone(),
            endpoint: optional(&bucket.endpoint),
            region: optional(&bucket.region),
            profile: optional(&bucket.profile),
            credentials: read_key_pair(bucket)?,
            trusted_checksums: required_word(&bucket.trusted_checksums)?,
            storage: ObjectStorage {
                encryption: required(&bucket.encryption)?,
                class: optional(&bucket.storage_class),
                deletes_versions: required(&bucket.delete_versions)?,
            },
        },
        push: PushSettings {
            zstd_enabled: required_word(&layer.push.compression)? == Compression::Zstd,
        },
        pull: PullSettings {
            check_shared_blocks: required(&layer.pull.check_shared_blocks)?,
        },
        sandbox: SandboxSettings {
            accel: required_word(&sandbox.accel)?,
            cpus: required(&sandbox.cpus)?,
            memory_bytes: memory_mib << 20,
            firmware: required_word(&sandbox.firmware)?,
            network: required::<NetworkName, NetworkName>(&sandbox.network)?.0,
            template: template.unwrap_or_else(|| DEFAULT_DOMAIN_XML.to_owned()),
            stop_timeout: required(&sandbox.stop_timeout_secs)?,
        },
        jobs: JobSettings {
            max_parallel: parallel as usize,
        },
        console: ConsoleSettings {
            mouse_enabled: required(&console.mouse)?,
            picture: required_word(&console.picture)?,
            viewer: optional(&console.viewer),
            theme: optional(&console.theme).filter(|name| name != "auto"),
            ascii_only: required(&console.ascii)?,
            columns: ListColumns {
                sandboxes: split_columns(optional(&console.sandbox_columns)),
                snapshots: split_columns(optional(&console.snapshot_columns)),
                bucket: split_columns(optional(&console.bucket_columns)),
            },
            notification: required_word(&console.notify)?,
            notification_threshold: required(&console.notify_after_secs)?,
        },
    })
}

fn split_columns(text: Option<String>) -> Option<Vec<String>> {
    let columns = |text: String| {
        let words = text.split(", ").filter(|word| !word.is_empty());
        words.map(str::to_owned).collect()
    };
    text.map(columns)
}

fn build_host(host: &HostTable, organizations: &[String]) -> Result<HostSettings> {
    // What is removed with a sandbox would be a snapshot's.
    let snapshots: String = required(&host.snapshots_dir)?;
    for (key, other) in [
        ("sandboxes_dir", &host.sandboxes_dir),
        ("nvram_dir", &host.nvram_dir),
        ("temp_dir", &host.temp_dir),
    ] {
        let dir: String = required(other)?;
        if Path::new(&dir) == Path::new(&snapshots) {
            let cause =
                format!("{key} is also snapshots_dir: snapshots need a directory of their own");
            // The one that was changed.
            let origins = [other, &host.snapshots_dir].into_iter().flatten();
            let mut origins = origins.map(|setting| &setting.entry.origin);
            let origin = origins.find(|origin| !matches!(origin, Origin::Default));
            return Err(invalid_setting(origin.unwrap_or(&Origin::Default), cause));
        }
    }
    Ok(HostSettings {
        name: required(&host.name)?,
        uri: required(&host.uri)?,
        snapshots_dir: required(&host.snapshots_dir)?,
        sandboxes_dir: required(&host.sandboxes_dir)?,
        nvram_dir: required(&host.nvram_dir)?,
        owner: required(&host.owner)?,
        temp_dir: required(&host.temp_dir)?,
        reconnect_timeout: required(&host.reconnect_secs)?,
        running_methods: required::<RunningMethods, RunningMethods>(&host.running)?.0,
        transfer: required_word(&host.transfer)?,
        bucket_endpoint: optional(&host.bucket_endpoint),
        unattended: required(&host.unattended_secs)?,
        organizations: organizations.to_vec(),
        max_bytes_per_sec: u64::from(required::<_, u32>(&host.max_mib_per_sec)?) << 20,
    })
}

fn read_template(setting: &Setting<FilePath>) -> Result<String> {
    read_file("template in [sandbox]", Path::new(&setting.value.0), true)
        .map(Option::unwrap_or_default)
        .map_err(|error| invalid_setting(&setting.entry.origin, error.message()))
}

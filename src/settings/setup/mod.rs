//! The first setup: what is asked, what is proposed, and the `config.toml` that is written. `snapdeck init` and the console
//! ask the same fields.

mod discovery;
mod file;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::de::value::Error as ValueError;
use serde::de::{DeserializeOwned, IntoDeserializer};

pub use discovery::{AwsProfile, Discovery};
pub use file::{refuse_existing, write_settings_file};

use crate::layer::Origin;
use crate::value::{BucketName, Directory, Endpoint, LibvirtUri, Owner, Prefix, Profile, Region};
use crate::{DEFAULT_CONFIG, LoadedSettings, document, host_name_from_uri, resolve_layer};
use snapdeck_model::settings::Settings;
use snapdeck_model::{HostName, Result};

/// A field of the setup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SetupField {
    /// Hosts, separated by spaces or commas.
    Hosts,
    /// Directory of the snapshots.
    Snapshots,
    /// Directory of the sandboxes.
    Sandboxes,
    /// Owner of snapshots.
    Owner,
    /// The bucket's name; empty for none.
    Bucket,
    /// Prefix of the keys.
    Prefix,
    /// URL of a store other than AWS; empty for AWS.
    Endpoint,
    /// Region; empty for that of the AWS chain.
    Region,
    /// AWS profile; empty for that of the AWS chain.
    Profile,
}

impl SetupField {
    /// All fields in the order in which they are asked.
    pub const ALL: [Self; 9] = [
        Self::Hosts,
        Self::Snapshots,
        Self::Sandboxes,
        Self::Owner,
        Self::Bucket,
        Self::Prefix,
        Self::Endpoint,
        Self::Region,
        Self::Profile,
    ];

    /// Returns its label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Hosts => "Hosts",
            Self::Snapshots => "Snapshots directory",
            Self::Sandboxes => "Sandboxes directory",
            Self::Owner => "Owner of snapshots",
            Self::Bucket => "Bucket",
            Self::Prefix => "Key prefix",
            Self::Endpoint => "Endpoint URL",
            Self::Region => "Region",
            Self::Profile => "AWS profile",
        }
    }

    /// Returns its meaning in a line.
    pub fn help(self) -> &'static str {
        match self {
            Self::Hosts => "local (this machine), SSH hosts or libvirt URIs, separated by spaces",
            Self::Snapshots => "on each host; holds standalone images NAME.qcow2",
            Self::Sandboxes => "on each host; holds the sandboxes' overlay disks",
            Self::Owner => "USER:GROUP of QEMU on the hosts",
            Self::Bucket => "name of the S3 bucket; empty: hosts only",
            Self::Prefix => "of all snapshots in the bucket",
            Self::Endpoint => "of a store other than AWS, http://HOST:PORT; empty: AWS",
            Self::Region => "empty: from the AWS profile, else us-east-1",
            Self::Profile => "with the keys; empty: environment or default profile",
        }
    }

    /// Returns whether it applies only with a bucket.
    pub fn needs_bucket(self) -> bool {
        matches!(
            self,
            Self::Prefix | Self::Endpoint | Self::Region | Self::Profile
        )
    }

    /// Returns the variable that replaces its value at each start.
    fn variable(self) -> Option<&'static str> {
        match self {
            Self::Bucket => Some("AWS_DEFAULT_BUCKET"),
            Self::Endpoint => Some("AWS_ENDPOINT_URL"),
            Self::Region => Some("AWS_REGION"),
            Self::Profile => Some("AWS_PROFILE"),
            _ => None,
        }
    }
}

/// The input of a setup: the path of the file, proposed answers, and what they come from.
#[derive(Debug, Clone)]
pub struct Setup {
    /// The file to be written.
    pub path: PathBuf,
    /// Hosts, profiles and keys of this machine.
    pub discovery: Discovery,
    /// The proposed answers.
    pub proposed: SetupAnswers,
    /// The settings without the file.
    base: Settings,
    /// Values of the fields' variables.
    variables: BTreeMap<SetupField, String>,
}

impl Setup {
    /// Searches this machine and proposes answers for the file at `path`. Values of flags and environment in `loaded`, which
    /// was loaded without a file, are proposed first.
    pub fn search(
        path: PathBuf,
        loaded: &LoadedSettings,
        env: &dyn Fn(&str) -> Option<OsString>,
    ) -> Self {
        let home = directories::BaseDirs::new();
        let home = home.as_ref().map(|dirs| dirs.home_dir());
        let discovery = Discovery::search(home, env);
        let base = loaded.settings.clone();
        let proposed = SetupAnswers::propose(&base, loaded.has_own_hosts, &discovery);
        let variable = |field: SetupField| {
            let value = env(field.variable()?)?.into_string().ok()?;
            (!value.is_empty()).then_some((field, value))
        };
        Self {
            variables: SetupField::ALL.into_iter().filter_map(variable).collect(),
            path,
            discovery,
            proposed,
            base,
        }
    }

    /// Returns the settings of the next start with these answers.
    ///
    /// # Errors
    /// `InvalidInput` for an invalid answer.
    pub fn settings(&self, answers: &SetupAnswers) -> Result<Settings> {
        let mut layer = document::read(DEFAULT_CONFIG, &|_| Origin::Default)?;
        let default_host = layer.hosts.first().cloned();
        let path: Arc<Path> = self.path.as_path().into();
        let text = answers.to_toml()?;
        layer.merge(document::read(&text, &|line| Origin::File {
            path: path.clone(),
            line,
        })?);
        let mut settings = resolve_layer(&mut layer, default_host)?;
        // The keys of the environment are used at each start.
        settings.bucket.credentials = self.base.bucket.credentials.clone();
        Ok(settings)
    }

    /// Returns what is wrong with the answer to a field.
    pub fn problem(&self, answers: &SetupAnswers, field: SetupField) -> Option<String> {
        if let Err(problem) = answers.check(field) {
            return Some(problem);
        }
        let (variable, value) = (field.variable()?, self.variables.get(&field)?);
        (value != answers.get(field)).then(|| format!("{variable} is set and replaces it"))
    }

    /// Returns what was found for a field, or why nothing was, to choose from.
    pub fn found(&self, field: SetupField) -> Option<String> {
        let discovery = &self.discovery;
        match field {
            SetupField::Hosts => {
                let local = match discovery.has_libvirt {
                    true => "libvirt on this machine (local)",
                    false => "no libvirt on this machine",
                };
                Some(match discovery.ssh_hosts.as_slice() {
                    [] => format!("found: {local}, no hosts in ~/.ssh/config"),
                    hosts => format!("found: {local}, SSH hosts {}", hosts.join(", ")),
                })
            }
            SetupField::Profile => {
                let profiles = discovery.profiles.iter();
                let names: Vec<&str> = profiles.map(|one| one.name.as_str()).collect();
                (!names.is_empty()).then(|| format!("found: {}", names.join(", ")))
            }
            _ => None,
        }
    }
}

/// The answers, a text for each field.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SetupAnswers(BTreeMap<SetupField, String>);

impl SetupAnswers {
    fn propose(base: &Settings, has_own_hosts: bool, discovery: &Discovery) -> Self {
        let mut answers = Self::default();
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        let bucket = &base.bucket;
        if let Some(host) = base.hosts.first() {
            answers.set(SetupField::Snapshots, &host.snapshots_dir);
            answers.set(SetupField::Sandboxes, &host.sandboxes_dir);
            let owner = discovery.owner.as_ref().unwrap_or(&host.owner);
            answers.set(SetupField::Owner, owner);
            // An SSH host is a guess: it may be any server.
            if has_own_hosts {
                answers.set(SetupField::Hosts, &host.uri);
            } else if discovery.has_libvirt || discovery.ssh_hosts.is_empty() {
                answers.set(SetupField::Hosts, "local");
            }
        }
        answers.set(SetupField::Bucket, &text(&bucket.name));
        answers.set(SetupField::Prefix, &bucket.prefix);
        answers.set(SetupField::Endpoint, &text(&bucket.endpoint));
        answers.set(SetupField::Region, &text(&bucket.region));
        let profile = match (&bucket.profile, discovery.profiles.as_slice()) {
            (Some(profile), _) => profile.as_str(),
            (None, [only]) if !discovery.has_key_pair && only.name != "default" => &only.name,
            _ => "",
        };
        answers.set(SetupField::Profile, profile);
        answers
    }

    /// Returns the answer to a field.
    pub fn get(&self, field: SetupField) -> &str {
        self.0.get(&field).map_or("", String::as_str)
    }

    /// Sets the answer to a field, without spaces around it.
    pub fn set(&mut self, field: SetupField, text: &str) {
        self.0.insert(field, text.trim().to_owned());
    }

    /// Returns whether a field applies to these answers.
    pub fn asks(&self, field: SetupField) -> bool {
        !field.needs_bucket() || !self.get(SetupField::Bucket).is_empty()
    }

    /// Checks the answer to a field.
    ///
    /// # Errors
    /// A sentence about an invalid answer.
    pub fn check(&self, field: SetupField) -> Result<(), String> {
        let text = self.get(field);
        match field {
            _ if !self.asks(field) => Ok(()),
            SetupField::Hosts => parse_hosts(text).map(drop),
            SetupField::Snapshots => parse::<Directory>(text),
            SetupField::Sandboxes => {
                parse::<Directory>(text)?;
                let other = self.get(SetupField::Snapshots);
                match Path::new(text) == Path::new(other) {
                    true => Err("snapshots need a directory of their own".to_owned()),
                    false => Ok(()),
                }
            }
            SetupField::Owner => parse::<Owner>(text),
            SetupField::Prefix => parse::<Prefix>(text),
            // The others may be empty.
            _ if text.is_empty() => Ok(()),
            SetupField::Bucket => parse::<BucketName>(text),
            SetupField::Endpoint => parse::<Endpoint>(text),
            SetupField::Region => parse::<Region>(text),
            SetupField::Profile => parse::<Profile>(text),
        }
    }

    /// Returns the hosts and their URIs.
    ///
    /// # Errors
    /// A sentence about an invalid one.
    fn hosts(&self) -> Result<Vec<(HostName, String)>, String> {
        parse_hosts(self.get(SetupField::Hosts))
    }
}

/// Checks a text as the file's value of type `T`.
fn parse<T: DeserializeOwned>(text: &str) -> Result<(), String> {
    let value: Result<T, ValueError> = T::deserialize(text.into_deserializer());
    value.map(drop).map_err(|error| error.to_string())
}

/// Parses `local`, `[USER@]HOST[:PORT]` and URIs, separated by spaces or commas. Names are unique.
fn parse_hosts(text: &str) -> Result<Vec<(HostName, String)>, String> {
    let mut hosts: Vec<(HostName, String)> = Vec::new();
    for word in text.split([' ', ',', '\t']).filter(|word| !word.is_empty()) {
        let uri = match word {
            "local" => "qemu:///system".to_owned(),
            uri if uri.contains("://") => uri.to_owned(),
            host if is_ssh_destination(host) => format!("qemu+ssh://{host}/system"),
            other => return Err(format!("{other:?} is neither a host nor a libvirt URI")),
        };
        parse::<LibvirtUri>(&uri)?;
        if hosts.iter().any(|(_, other)| *other == uri) {
            return Err(format!("{word} is listed twice"));
        }
        let base = host_name_from_uri(&uri);
        let numbered = (2..).map(|number| format!("{base}-{number}"));
        let mut names = std::iter::once(base.clone()).chain(numbered);
        let is_free = |name: &String| hosts.iter().all(|(other, _)| other.as_str() != name);
        let name = names.find(is_free).unwrap_or_default();
        let name = name
            .parse()
            .map_err(|error: snapdeck_model::Error| error.message())?;
        hosts.push((name, uri));
    }
    match hosts.is_empty() {
        true => Err("name a host; local is this machine".to_owned()),
        false => Ok(hosts),
    }
}

/// Returns whether a word is `[USER@]HOST[:PORT]` of plain characters.
fn is_ssh_destination(word: &str) -> bool {
    let (user, host) = word.split_once('@').unwrap_or(("x", word));
    let (host, port) = host.split_once(':').unwrap_or((host, "22"));
    let is_plain = |text: &str| {
        let is_allowed = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b'-');
        text.bytes().all(is_allowed) && !text.is_empty() && !text.starts_with('-')
    };
    is_plain(user) && is_plain(host) && port.parse::<u16>().is_ok_and(|port| port > 0)
}

#[cfg(test)]
mod tests;

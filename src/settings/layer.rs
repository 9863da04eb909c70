//! A layer of settings: the tables of a file, each value with its origin.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use serde_json::Value as Json;
use toml::Spanned;

use super::value::{
    BucketColumns, BucketName, Compression, Count, Credential, Directory, EncryptionText, Endpoint,
    FilePath, Keyword, LibvirtUri, NetworkName, Organizations, Owner, Prefix, Profile, Region,
    RunningMethods, SandboxColumns, SnapshotColumns, StorageClass, Theme, Viewer,
};
use snapdeck_model::settings::{
    Accel, Firmware, NotificationMethod, PictureStyle, TransferRoute, TrustedChecksums,
};
use snapdeck_model::{Error, HostName, Kind};

/// Origin of a value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "layer", rename_all = "lowercase")]
pub enum Origin {
    /// `config/default.toml`, compiled in.
    Default,
    /// The user's file.
    File {
        /// Path of the file.
        #[serde(rename = "file", serialize_with = "serialize_path")]
        path: Arc<Path>,
        /// Line, from 1.
        line: usize,
    },
    /// The environment.
    Environment {
        /// Name of the variable.
        variable: &'static str,
    },
    /// The command line.
    Flag {
        /// Name of the flag.
        flag: &'static str,
    },
}

/// Writes a path, which need not be UTF-8.
fn serialize_path<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&path.display())
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Environment { variable } => write!(f, "environment {variable}"),
            Self::Flag { flag } => write!(f, "flag {flag}"),
        }
    }
}

/// Returns the error of a setting at `origin`.
pub(crate) fn invalid_setting(origin: &Origin, cause: impl fmt::Display) -> Error {
    let location = match origin {
        Origin::Default => "the defaults".to_owned(),
        Origin::File { path, line } => format!("{} line {line}", path.display()),
        Origin::Environment { variable } => format!("environment variable {variable}"),
        Origin::Flag { flag } => format!("flag {flag}"),
    };
    Error::new(Kind::InvalidInput, "cannot read settings")
        .with_cause(format!("{location}: {cause}"))
}

/// A value with its origin.
#[derive(Clone)]
pub(crate) struct Setting<T> {
    pub value: T,
    pub entry: Entry,
}

/// The part of a setting that a report shows.
#[derive(Clone)]
pub(crate) struct Entry {
    /// The value in its normal form.
    pub json: Json,
    pub origin: Origin,
    /// Byte offset of the value in the text of its layer.
    offset: usize,
}

impl<'de, T: Deserialize<'de> + Serialize> Deserialize<'de> for Setting<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<T>::deserialize(deserializer)?;
        let entry = Entry {
            json: serde_json::to_value(spanned.get_ref()).map_err(D::Error::custom)?,
            origin: Origin::Default,
            offset: spanned.span().start,
        };
        let value = spanned.into_inner();
        Ok(Self { value, entry })
    }
}

/// Defines a table of the file.
macro_rules! table {
    ($name:ident { $($key:ident: $type:ty,)+ }) => {
        #[derive(Clone, Default, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub(crate) struct $name {
            $(pub(crate) $key: Option<Setting<$type>>,)+
        }

        impl $name {
            const KEYS: &[&str] = &[$(stringify!($key)),+];

            /// Adds the values of `upper` and replaces those that both have.
            pub(crate) fn merge(&mut self, upper: Self) {
                $(self.$key = upper.$key.or(self.$key.take());)+
            }

            fn set_origins(&mut self, origin_at: &dyn Fn(usize) -> Origin) {
                $(if let Some(setting) = &mut self.$key {
                    setting.entry.origin = origin_at(setting.entry.offset);
                })+
            }

            fn entries(&self) -> Vec<(&'static str, Option<&Entry>)> {
                vec![$((stringify!($key), self.$key.as_ref().map(|setting| &setting.entry))),+]
            }
        }
    };
}

/// Defines [`Layer`] and its tables, in the order of the documentation.
macro_rules! layer {
    (hosts: $host:ident $host_keys:tt $($section:ident: $name:ident $keys:tt)+) => {
        table! { $host $host_keys }
        $(table! { $name $keys })+

        /// The tables with their keys.
        pub(crate) const SECTIONS: &[(&str, &[&str])] = &[
            ("hosts", $host::KEYS),
            $((stringify!($section), $name::KEYS),)+
        ];

        /// A layer: the content of a file.
        #[derive(Clone, Default, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub(crate) struct Layer {
            pub(crate) hosts: Vec<Spanned<$host>>,
            $(pub(crate) $section: $name,)+
        }

        impl Layer {
            /// Merges `upper`, which takes precedence: its hosts replace all hosts, its other values replace one each.
            pub(crate) fn merge(&mut self, upper: Self) {
                if !upper.hosts.is_empty() {
                    self.hosts = upper.hosts;
                }
                $(self.$section.merge(upper.$section);)+
            }

            pub(crate) fn set_origins(&mut self, origin_at: &dyn Fn(usize) -> Origin) {
                for host in &mut self.hosts {
                    host.get_mut().set_origins(origin_at);
                }
                $(self.$section.set_origins(origin_at);)+
            }

            /// Returns the entries of each table, with a table `hosts` for each host.
            pub(crate) fn tables(&self) -> Vec<(&'static str, Vec<(&'static str, Option<&Entry>)>)> {
                let hosts = self.hosts.iter().map(|host| ("hosts", host.as_ref().entries()));
                hosts.chain([$((stringify!($section), self.$section.entries())),+]).collect()
            }
        }
    };
}

type Seconds = Count<0, 86_400>;

layer! {
    hosts: HostTable {
        name: HostName,
        uri: LibvirtUri,
        snapshots_dir: Directory,
        sandboxes_dir: Directory,
        nvram_dir: Directory,
        owner: Owner,
        temp_dir: Directory,
        reconnect_secs: Seconds,
        running: RunningMethods,
        transfer: Keyword<TransferRoute>,
        bucket_endpoint: Endpoint,
        unattended_secs: Seconds,
        max_mib_per_sec: Count<0, 1_000_000>,
    }
    bucket: BucketTable {
        name: BucketName,
        prefix: Prefix,
        organizations: Organizations,
        endpoint: Endpoint,
        region: Region,
        profile: Profile,
        access_key_id: Credential,
        secret_access_key: Credential,
        trusted_checksums: Keyword<TrustedChecksums>,
        encryption: EncryptionText,
        storage_class: StorageClass,
        delete_versions: bool,
    }
    push: PushTable {
        compression: Keyword<Compression>,
    }
    pull: PullTable {
        check_shared_blocks: bool,
    }
    sandbox: SandboxTable {
        accel: Keyword<Accel>,
        cpus: Count<1, 512>,
        memory_mib: Count<16, 16_777_216>,
        firmware: Keyword<Firmware>,
        network: NetworkName,
        template: FilePath,
        stop_timeout_secs: Count<1, 86_400>,
    }
    jobs: JobTable {
        parallel: Count<1, 64>,
    }
    console: ConsoleTable {
        mouse: bool,
        picture: Keyword<PictureStyle>,
        viewer: Viewer,
        theme: Theme,
        ascii: bool,
        sandbox_columns: SandboxColumns,
        snapshot_columns: SnapshotColumns,
        bucket_columns: BucketColumns,
        notify: Keyword<NotificationMethod>,
        notify_after_secs: Seconds,
    }
}

/// Returns `[[hosts]]` or `[bucket]`.
pub(crate) fn heading(section: &str) -> String {
    match section {
        "hosts" => "[[hosts]]".to_owned(),
        _ => format!("[{section}]"),
    }
}

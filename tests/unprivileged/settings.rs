//! Settings: layers, origin of each value, masking, and errors of invalid files.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use snapdeck_model::settings::{Accel, Credentials, PictureStyle};
use snapdeck_model::{Error, Kind};
use snapdeck_settings::{Flags, LoadedSettings, load};

/// A settings file in its own directory.
struct Home(tempfile::TempDir);

impl Home {
    fn new(text: impl AsRef<[u8]>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("config.toml"), text).unwrap();
        Self(dir)
    }
    fn file(&self) -> PathBuf {
        self.0.path().join("config.toml")
    }
}

fn try_load(
    file: Option<&Path>,
    env: &[(&str, &str)],
    flags: &Flags,
) -> Result<LoadedSettings, Error> {
    let env: Vec<(String, OsString)> = env
        .iter()
        .map(|(name, value)| ((*name).into(), (*value).into()))
        .collect();
    let lookup = |name: &str| {
        env.iter()
            .find(|(variable, _)| variable == name)
            .map(|(_, value)| value.clone())
    };
    load(flags, &lookup, file)
}

fn with_env(env: &[(&str, &str)]) -> Result<LoadedSettings, Error> {
    try_load(None, env, &Flags::default())
}

fn error_of(text: impl AsRef<[u8]>) -> String {
    let home = Home::new(text);
    let error = try_load(Some(&home.file()), &[], &Flags::default()).unwrap_err();
    assert_eq!(error.kind(), Kind::InvalidInput);
    error
        .to_string()
        .replace(&home.file().display().to_string(), "FILE")
}

#[test]
fn defaults_are_as_documented() {
    let settings = with_env(&[]).unwrap().settings;
    let [host] = settings.hosts.as_slice() else {
        panic!("one host")
    };
    assert_eq!(host.name.as_str(), "local");
    assert_eq!(host.uri, "qemu:///system");
    assert_eq!(host.snapshots_dir, "/var/lib/libvirt/snapshots");
    assert_eq!(host.sandboxes_dir, "/var/lib/libvirt/sandboxes");
    assert_eq!(host.nvram_dir, "/var/lib/libvirt/qemu/nvram");
    assert_eq!(host.owner, "libvirt-qemu:kvm");
    assert_eq!(host.temp_dir, "/tmp");
    assert_eq!(settings.bucket.name, None);
    assert_eq!(settings.bucket.prefix, "snapshots/");
    assert_eq!(settings.bucket.endpoint, None);
    assert_eq!(settings.bucket.region, None);
    assert_eq!(settings.bucket.credentials, None);
    assert_eq!(settings.sandbox.accel, Accel::Auto);
    assert_eq!(settings.sandbox.cpus, 2);
    assert_eq!(settings.sandbox.memory_bytes, 4 << 30);
    assert_eq!(settings.sandbox.stop_timeout.as_secs(), 60);
    assert_eq!(settings.jobs.max_parallel, 4);
    assert!(settings.console.mouse_enabled);
    assert_eq!(settings.console.picture, PictureStyle::Auto);
    assert_eq!(settings.console.viewer, None);
}

/// Keys that are commented out in the defaults are valid.
#[test]
fn commented_out_keys_are_valid() {
    let text: String = snapdeck_settings::DEFAULT_CONFIG
        .lines()
        .map(|line| match line.strip_prefix("# ") {
            Some(rest) if rest.contains(" = \"") && !rest.contains(". ") => rest,
            _ => line,
        })
        .flat_map(|line| [line, "\n"])
        .collect();
    // One key names a file that must exist.
    let own = concat!(env!("CARGO_MANIFEST_DIR"), "/config/sandbox.xml");
    let home = Home::new(text.replace("/etc/snapdeck/sandbox.xml", own));
    let settings = try_load(Some(&home.file()), &[], &Flags::default())
        .unwrap()
        .settings;
    assert_eq!(
        settings.sandbox.template,
        snapdeck_settings::DEFAULT_DOMAIN_XML
    );
    let bucket = settings.bucket;
    assert_eq!(bucket.name.as_deref(), Some("daytona"));
    assert_eq!(bucket.endpoint.as_deref(), Some("http://127.0.0.1:9000"));
    assert!(bucket.region.is_some() && bucket.credentials.is_some());
}

#[test]
fn later_layers_override_and_each_value_has_its_origin() {
    let home = Home::new(
        "[bucket]\nname = \"from-file\"\nregion = \"file-1\"\nendpoint = \"http://file:1\"\n\
         prefix = \"/images\"\n\n[jobs]\nparallel = 0x10\n",
    );
    let env = [
        ("AWS_DEFAULT_BUCKET", "from-env"),
        ("AWS_REGION", "env-1"),
        ("AWS_ENDPOINT_URL", ""),
    ];
    let flags = Flags {
        bucket: Some("from-flag".into()),
        ..Flags::default()
    };
    let loaded = try_load(Some(&home.file()), &env, &flags).unwrap();
    let bucket = &loaded.settings.bucket;
    assert_eq!(bucket.name.as_deref(), Some("from-flag"));
    assert_eq!(bucket.region.as_deref(), Some("env-1"));
    assert_eq!(
        bucket.endpoint.as_deref(),
        Some("http://file:1"),
        "an empty variable counts as unset"
    );
    assert_eq!(bucket.prefix, "images/");
    assert_eq!(loaded.settings.jobs.max_parallel, 16);

    let json = loaded.report.to_json();
    let file = home.file();
    let from_file = |line| serde_json::json!({"layer": "file", "file": file, "line": line});
    assert_eq!(json["configFile"], serde_json::json!(file));
    assert_eq!(json["bucket"]["name"]["from"]["flag"], "--bucket-name");
    assert_eq!(json["bucket"]["region"]["from"]["variable"], "AWS_REGION");
    assert_eq!(json["bucket"]["endpoint"]["from"], from_file(4));
    assert_eq!(json["bucket"]["prefix"]["from"], from_file(5));
    assert_eq!(json["jobs"]["parallel"]["from"], from_file(8));
    assert_eq!(json["console"]["mouse"]["from"]["layer"], "default");
    assert_eq!(
        json["bucket"]["accessKeyId"]["value"],
        serde_json::Value::Null
    );

    let text = loaded.report.to_string();
    assert!(text.contains("prefix = \"images/\""), "{text}");
    assert!(text.contains(&format!("# {}:5", file.display())), "{text}");
    assert!(text.contains("# environment AWS_REGION"), "{text}");
    assert!(text.contains("# flag --bucket-name"), "{text}");
}

#[test]
fn hosts_of_a_file_use_defaults_for_missing_keys() {
    let home = Home::new(
        "[[hosts]]\nname = \"alpha\"\nuri = \"qemu+ssh://root@alpha/system\"\ntemp_dir = \"/srv/tmp/\"\n\
         [[hosts]]\nuri = \"qemu:///system\"\nname = \"beta\"\nowner = \"root:root\"\n",
    );
    let env = [("LIBVIRT_URI", "qemu+ssh://root@elsewhere/system")];
    let loaded = try_load(Some(&home.file()), &env, &Flags::default()).unwrap();
    let [alpha, beta] = loaded.settings.hosts.as_slice() else {
        panic!("two hosts")
    };
    assert_eq!((alpha.name.as_str(), beta.name.as_str()), ("alpha", "beta"));
    assert_eq!(alpha.temp_dir, "/srv/tmp");
    assert_eq!(alpha.owner, "libvirt-qemu:kvm");
    assert_eq!(beta.owner, "root:root");
    assert_eq!(beta.snapshots_dir, "/var/lib/libvirt/snapshots");
    let json = loaded.report.to_json();
    assert_eq!(json["hosts"][0]["tempDir"]["from"]["line"], 4);
    assert_eq!(json["hosts"][1]["name"]["from"]["line"], 7);
    assert_eq!(json["hosts"][1]["tempDir"]["from"]["layer"], "default");
    assert_eq!(
        json["notes"][0],
        "LIBVIRT_URI is ignored because [[hosts]] is configured"
    );

    // The flag replaces the hosts of the file.
    let flags = Flags {
        uri: Some("test:///default".into()),
        ..Flags::default()
    };
    let hosts = try_load(Some(&home.file()), &env, &flags)
        .unwrap()
        .settings
        .hosts;
    assert_eq!(hosts.len(), 1);
    assert_eq!(hosts[0].uri, "test:///default");
}

#[test]
fn without_hosts_libvirt_uri_is_the_only_host() {
    for (uri, name) in [
        ("qemu:///session", "local"),
        ("qemu:///embed?root=/x", "local"),
        (
            "qemu+ssh://root@libvirt-host.example.com/system",
            "libvirt-host.example.com",
        ),
        (
            "qemu+ssh://root@10.0.0.7:2222/system?keyfile=/k",
            "10.0.0.7",
        ),
        ("qemu+ssh://root@[fd00::1]:22/system", "fd00--1"),
        ("qemu+ssh://root@h%20x/system", "remote"),
    ] {
        let loaded = with_env(&[("LIBVIRT_URI", uri)]).unwrap();
        let [host] = loaded.settings.hosts.as_slice() else {
            panic!("one host")
        };
        assert_eq!((host.name.as_str(), host.uri.as_str()), (name, uri));
        let from = &loaded.report.to_json()["hosts"][0]["uri"]["from"];
        assert_eq!(from["variable"], "LIBVIRT_URI");
    }
}

#[test]
fn errors_of_a_file_have_line_and_key() {
    let table = [
        (
            "[[hosts]]\nname = \"a\"\nuri = \"qemu:///system\"\nsnapshot_dir = \"/x\"\n",
            "FILE line 4: unknown key \"snapshot_dir\" in [[hosts]]; did you mean snapshots_dir?",
        ),
        (
            "hosts = [\n  { name = \"a\", uri = \"qemu:///system\" },\n  { name = \"b\", uri = \"qemu:///system\", x = 1 },\n]\n",
            "FILE line 3: unknown key \"x\" in [[hosts]]; known keys: name, uri, snapshots_dir, sandboxes_dir, nvram_dir, owner, temp_dir, reconnect_secs, running, transfer, bucket_endpoint, unattended_secs, max_mib_per_sec",
        ),
        (
            "\n[bukket]\nname = \"x\"\n",
            "FILE line 2: unknown key \"bukket\" at the top level; did you mean [bucket]?",
        ),
        (
            "endpoint = \"http://x\"\n",
            "FILE line 1: unknown key \"endpoint\" at the top level; move it to [bucket]",
        ),
        (
            "colour = 1\n",
            "FILE line 1: unknown key \"colour\" at the top level; known tables: [[hosts]], [bucket], [push], [pull], [sandbox], [jobs], [console]",
        ),
        (
            "# x\n\n[jobs]\nparallel = \"4\"\n",
            "FILE line 4: parallel in [jobs]: invalid type: string \"4\", expected an integer from 1 to 64",
        ),
        (
            "[jobs]\nparallel = 4.0\n",
            "FILE line 2: parallel in [jobs]: invalid type: floating point `4.0`, expected an integer from 1 to 64",
        ),
        (
            "jobs.parallel = 0\n",
            "FILE line 1: parallel in [jobs]: invalid value: integer `0`, expected an integer from 1 to 64",
        ),
        (
            "[jobs]\nparallel = 99999999999999999999\n",
            "FILE line 2: parallel in [jobs]: invalid type: integer `99999999999999999999` as i128, expected an integer from 1 to 64",
        ),
        (
            "[console]\nmouse = \"yes\"\n",
            "FILE line 2: mouse in [console]: invalid type: string \"yes\", expected a boolean",
        ),
        (
            "[bucket]\nname = 7\n",
            "FILE line 2: name in [bucket]: invalid type: integer `7`, expected a string",
        ),
        (
            "[bucket]\nname = [\"x\"]\n",
            "FILE line 2: name in [bucket]: invalid type: sequence, expected a string",
        ),
        (
            "[bucket.name]\nx = 1\n",
            "FILE line 1: name in [bucket]: invalid type: map, expected a string",
        ),
        ("bucket = \"x\"\n", "FILE line 1: [bucket] must be a table"),
        (
            "[hosts]\nname = \"a\"\n",
            "FILE line 1: hosts must be a list of tables; begin each host with a line [[hosts]]",
        ),
        (
            "[jobs]\n[[hosts]]\nname = \"a\"\n",
            "FILE line 2: [[hosts]] has no uri",
        ),
        (
            "[[hosts]]\nname = \"a\"\nuri = \"qemu:///system\"\n[[hosts]]\nname = \"a\"\nuri = \"qemu:///system\"\n",
            "FILE line 5: name in [[hosts]] must be unique, a is also at FILE:2",
        ),
        (
            "[[hosts]]\nname = \"../x\"\nuri = \"qemu:///system\"\n",
            "FILE line 2: name in [[hosts]]: \"../x\" is not a valid host name; use 1 to 128 letters, digits, '.', '_' and '-', beginning with a letter or digit",
        ),
        (
            "[[hosts]]\nname = \"a\"\nuri = \"qemu:///system\"\ntemp_dir = \"tmp\"\n",
            "FILE line 4: temp_dir in [[hosts]]: invalid value: string \"tmp\", expected an absolute directory without '.' and '..'",
        ),
        (
            "[[hosts]]\nname = \"a\"\nuri = \"qemu:///system\"\nowner = \"root\"\n",
            "FILE line 4: owner in [[hosts]]: invalid value: string \"root\", expected USER:GROUP",
        ),
        (
            "[[hosts]]\nname = \"a\"\nuri = \"qemu+tcp://alpha/system\"\n",
            "FILE line 3: uri in [[hosts]]: invalid value: string \"qemu+tcp://alpha/system\", expected the URI of a local libvirt, or of one over SSH, without a password: qemu:///system, qemu+ssh://USER@HOST/system",
        ),
        (
            "[[hosts]]\nname = \"a\"\nuri = \"qemu:///system\"\nsnapshots_dir = \"/s\"\nsandboxes_dir = \"/s/\"\n",
            "FILE line 5: sandboxes_dir is also snapshots_dir: snapshots need a directory of their own",
        ),
        (
            "[[hosts]]\nname = \"a\"\nuri = \"qemu:///system\"\nsnapshots_dir = \"/s\"\ntemp_dir = \"/s\"\n",
            "FILE line 5: temp_dir is also snapshots_dir: snapshots need a directory of their own",
        ),
        (
            "[[hosts]]\nname = \"a\"\nuri = \"qemu:///system\"\nsnapshots_dir = \"/var/lib/libvirt/qemu/nvram\"\n",
            "FILE line 4: nvram_dir is also snapshots_dir: snapshots need a directory of their own",
        ),
        (
            "[sandbox]\ntemplate = \"/nowhere/own.xml\"\n",
            "FILE line 2: template in [sandbox]: /nowhere/own.xml: No such file or directory (os error 2)",
        ),
        (
            "[sandbox]\naccel = \"tcg\"\n",
            "FILE line 2: accel in [sandbox]: unknown value `tcg`, expected one of `auto`, `kvm`, `qemu`",
        ),
        (
            "[bucket]\nendpoint = \"minio:9000\"\n",
            "FILE line 2: endpoint in [bucket]: invalid value: string \"minio:9000\", expected a URL such as https://s3.example.com:9000",
        ),
        (
            "[bucket]\naccess_key_id = \"AKIA\"\n",
            "FILE line 2: secret_access_key in [bucket] is missing: a key pair needs both; set AWS_SECRET_ACCESS_KEY as well, or neither",
        ),
    ];
    for (text, sentence) in table {
        assert_eq!(
            error_of(text),
            format!("cannot read settings: {sentence}"),
            "{text}"
        );
    }
}

#[test]
fn syntax_errors_have_line_and_key_but_no_value() {
    for (text, beginning) in [
        (
            "[bucket]\nname = \"x\"\nsecret_access_key = hunter2\n",
            "FILE line 3: key secret_access_key: ",
        ),
        (
            "[bucket]\nsecret_access_key = \"hunter2\n",
            "FILE line 2: key secret_access_key: ",
        ),
        (
            "[bucket]\nname = \"x\"\nname = \"hunter2\"\n",
            "FILE line 3: key name: ",
        ),
        ("[bucket\nname = \"hunter2\"\n", "FILE line 1: "),
    ] {
        let sentence = error_of(text);
        assert!(
            sentence.starts_with(&format!("cannot read settings: {beginning}")),
            "{sentence}"
        );
        assert!(!sentence.contains("hunter2"), "{sentence}");
    }
    assert_eq!(
        error_of(b"[bucket]\nname = \"\xff\"\n"),
        "cannot read settings: FILE: line 2 is not UTF-8"
    );
}

#[test]
fn only_a_named_file_must_exist() {
    let missing = Path::new("/nonexistent/config.toml");
    assert!(try_load(Some(missing), &[], &Flags::default()).is_ok());
    let flags = Flags {
        config: Some(missing.into()),
        ..Flags::default()
    };
    let env = [("SNAPDECK_CONFIG", "/nonexistent/config.toml")];
    for result in [
        try_load(None, &[], &flags),
        try_load(None, &env, &Flags::default()),
    ] {
        let error = result.unwrap_err();
        assert_eq!(error.kind(), Kind::InvalidInput);
        assert!(
            error.to_string().contains("/nonexistent/config.toml"),
            "{error}"
        );
    }
    // The flag has precedence over the variable, and both over the user's file.
    let (user, named) = (
        Home::new("[bucket]\nname = \"user\"\n"),
        Home::new("[bucket]\nname = \"named\"\n"),
    );
    let flags = Flags {
        config: Some(named.file()),
        ..Flags::default()
    };
    let loaded = try_load(Some(&user.file()), &env, &flags).unwrap();
    assert_eq!(loaded.settings.bucket.name.as_deref(), Some("named"));
}

#[test]
fn a_bad_variable_or_flag_is_named() {
    let error = with_env(&[("AWS_ENDPOINT_URL", "minio")]).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("environment variable AWS_ENDPOINT_URL: endpoint"),
        "{error}"
    );
    let flags = Flags {
        region: Some("eu west".into()),
        ..Flags::default()
    };
    let error = try_load(None, &[], &flags).unwrap_err();
    assert!(
        error.to_string().contains("flag --region: region"),
        "{error}"
    );
}

const ID: &str = "AKIAIOSFODNN7EXAMPLE";
const SECRET: &str = "wJalrXUtnFEMI/K7MDENG";

#[test]
fn incomplete_key_pairs_are_an_error() {
    let pair = with_env(&[("AWS_ACCESS_KEY_ID", ID), ("AWS_SECRET_ACCESS_KEY", SECRET)]).unwrap();
    assert_eq!(
        pair.settings.bucket.credentials,
        Some(Credentials {
            access_key_id: ID.into(),
            secret_access_key: SECRET.into()
        })
    );
    for (variable, other) in [
        ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"),
        ("AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID"),
    ] {
        let error = with_env(&[(variable, SECRET)]).unwrap_err();
        assert_eq!(error.kind(), Kind::InvalidInput);
        let sentence = error.to_string();
        assert!(
            sentence.contains(variable) && sentence.contains(other),
            "{sentence}"
        );
        assert!(!sentence.contains(SECRET), "{sentence}");
    }
    // The environment may complete a pair of the file; two pairs are not mixed.
    let half = Home::new(format!("[bucket]\naccess_key_id = \"{ID}\"\n"));
    let env = [("AWS_SECRET_ACCESS_KEY", SECRET)];
    assert!(try_load(Some(&half.file()), &env, &Flags::default()).is_ok());
    let whole = Home::new(format!(
        "[bucket]\naccess_key_id = \"{ID}\"\nsecret_access_key = \"other\"\n"
    ));
    let error = try_load(Some(&whole.file()), &env, &Flags::default()).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("is set without AWS_ACCESS_KEY_ID"),
        "{error}"
    );
}

#[test]
fn a_session_token_uses_the_aws_chain() {
    let home = Home::new("[bucket]\naccess_key_id = \"file\"\nsecret_access_key = \"file\"\n");
    let env = [
        ("AWS_ACCESS_KEY_ID", ID),
        ("AWS_SECRET_ACCESS_KEY", SECRET),
        ("AWS_SESSION_TOKEN", "token"),
    ];
    let loaded = try_load(Some(&home.file()), &env, &Flags::default()).unwrap();
    assert_eq!(loaded.settings.bucket.credentials, None);
    assert!(loaded.report.to_string().contains("left to the AWS chain"));
}

#[test]
fn secrets_are_masked_everywhere() {
    for value in ["\"hunter 2\"", "[\"hunter\"]", "7001"] {
        let message = error_of(format!("[bucket]\nsecret_access_key = {value}\n"));
        let expected =
            "secret_access_key in [bucket]: invalid value, expected a string without spaces";
        assert_eq!(
            message,
            format!("cannot read settings: FILE line 2: {expected}")
        );
    }
    let message = error_of("[[hosts]]\nname = \"a\"\nuri = \"qemu+ssh://root:hunter2@h/system\"\n");
    assert!(!message.contains("hunter2"), "{message}");
    let env = [("AWS_ACCESS_KEY_ID", ID), ("AWS_SECRET_ACCESS_KEY", SECRET)];
    let loaded = with_env(&env).unwrap();
    let json = loaded.report.to_json();
    assert_eq!(json["bucket"]["accessKeyId"]["value"], "AKIA********");
    assert_eq!(json["bucket"]["secretAccessKey"]["value"], "********");
    for shown in [
        json.to_string(),
        loaded.report.to_string(),
        format!("{loaded:?}"),
    ] {
        assert!(!shown.contains(SECRET), "{shown}");
    }
    assert!(!loaded.report.to_string().contains(ID));
}

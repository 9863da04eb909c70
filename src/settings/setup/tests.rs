#![allow(clippy::unwrap_used)]
use std::os::unix::fs::PermissionsExt;

use super::*;
use snapdeck_model::Kind;

fn setup(env: &[(&str, &str)]) -> Setup {
    let env = |name: &str| -> Option<OsString> {
        let found = env.iter().find(|(variable, _)| *variable == name);
        found.map(|(_, value)| value.into())
    };
    let loaded = crate::load(&Default::default(), &env, None).unwrap();
    let mut setup = Setup::search("/nonexistent/config.toml".into(), &loaded, &env);
    // Not those of this machine.
    setup.discovery = Discovery::default();
    setup.proposed =
        SetupAnswers::propose(&loaded.settings, loaded.has_own_hosts, &setup.discovery);
    setup
}

fn answers(changes: &[(SetupField, &str)]) -> SetupAnswers {
    let mut answers = setup(&[]).proposed;
    for (field, text) in changes {
        answers.set(*field, text);
    }
    answers
}

/// The settings that the next start reads from the written file.
fn written(answers: &SetupAnswers) -> LoadedSettings {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("new/snapdeck/config.toml");
    write_settings_file(&path, &answers.to_toml().unwrap()).unwrap();
    let mode = path.metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    crate::load(&Default::default(), &|_| None, Some(&path)).unwrap()
}

#[test]
fn the_proposed_file_has_the_defaults_and_all_comments() {
    let proposed = answers(&[]);
    let defaults = crate::load(&Default::default(), &|_| None, None).unwrap();
    assert_eq!(written(&proposed).settings, defaults.settings);
    let text = proposed.to_toml().unwrap();
    for (comment, line) in DEFAULT_CONFIG.lines().enumerate().skip(6) {
        if line.starts_with("# ") && file::split_setting(line).is_none() {
            assert!(text.contains(line), "line {comment}: {line}");
        }
    }
    assert!(text.contains("\n# cpus = 2\n") && text.contains("\nowner = \"libvirt-qemu:kvm\"\n"));
}

#[test]
fn the_file_is_read_back_with_equal_values() {
    let answers = answers(&[
        (
            SetupField::Hosts,
            "local, op@rack2:2222 qemu+ssh://op@rack2/system rack3",
        ),
        (SetupField::Snapshots, "/srv/a b\"c\\/"),
        (SetupField::Sandboxes, "/srv/'sandboxes' #1"),
        (SetupField::Owner, "qemu:qemu"),
        (SetupField::Bucket, "images"),
        (SetupField::Prefix, "team \"x\"/"),
        (SetupField::Endpoint, "http://127.0.0.1:9000"),
        (SetupField::Region, "eu-west-1"),
        (SetupField::Profile, "a \"b\" = 'c' \\ #"),
    ]);
    let settings = written(&answers).settings;
    let hosts: Vec<_> = settings
        .hosts
        .iter()
        .map(|host| (host.name.as_str(), host.uri.as_str()))
        .collect();
    assert_eq!(
        hosts,
        [
            ("local", "qemu:///system"),
            ("rack2", "qemu+ssh://op@rack2:2222/system"),
            ("rack2-2", "qemu+ssh://op@rack2/system"),
            ("rack3", "qemu+ssh://rack3/system"),
        ]
    );
    for host in &settings.hosts {
        assert_eq!(host.snapshots_dir, "/srv/a b\"c\\");
        assert_eq!(host.sandboxes_dir, "/srv/'sandboxes' #1");
        assert_eq!(host.owner, "qemu:qemu");
    }
    let bucket = &settings.bucket;
    assert_eq!(bucket.name.as_deref(), Some("images"));
    assert_eq!(bucket.prefix, "team \"x\"/");
    assert_eq!(bucket.endpoint.as_deref(), Some("http://127.0.0.1:9000"));
    assert_eq!(bucket.region.as_deref(), Some("eu-west-1"));
    assert_eq!(bucket.profile.as_deref(), Some("a \"b\" = 'c' \\ #"));
    assert_eq!(bucket.credentials, None);
    assert_eq!(setup(&[]).settings(&answers).unwrap(), settings);
}

#[test]
fn without_a_bucket_its_other_fields_are_not_asked() {
    let answers = answers(&[(SetupField::Region, "b a d"), (SetupField::Endpoint, "x")]);
    assert!(!answers.asks(SetupField::Region) && answers.check(SetupField::Region).is_ok());
    let bucket = written(&answers).settings.bucket;
    assert_eq!(
        (bucket.name, bucket.region, bucket.endpoint),
        (None, None, None)
    );
}

#[test]
fn invalid_answers_are_named() {
    for (field, text, problem) in [
        (SetupField::Hosts, "", "name a host"),
        (SetupField::Hosts, "-oProxyCommand=x", "neither a host"),
        (SetupField::Hosts, "a/b", "neither a host"),
        (SetupField::Hosts, "local qemu:///system", "listed twice"),
        (
            SetupField::Hosts,
            "qemu+ssh://a:b@c/system",
            "without a password",
        ),
        (SetupField::Snapshots, "relative", "absolute directory"),
        (
            SetupField::Sandboxes,
            "/var/lib/libvirt/snapshots/",
            "their own",
        ),
        (SetupField::Owner, "root", "USER:GROUP"),
        (SetupField::Bucket, "a b", "bucket's name"),
        (SetupField::Prefix, "../x", "prefix"),
    ] {
        let answers = answers(&[(SetupField::Bucket, "images"), (field, text)]);
        let found = answers.check(field).unwrap_err();
        assert!(found.contains(problem), "{text:?}: {found}");
        assert_eq!(answers.to_toml().unwrap_err().kind(), Kind::InvalidInput);
    }
}

#[test]
fn an_existing_file_is_never_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.toml");
    std::os::unix::fs::symlink("nowhere", &path).unwrap();
    assert_eq!(
        write_settings_file(&path, "x").unwrap_err().kind(),
        Kind::Conflict
    );
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, "mine").unwrap();
    assert_eq!(
        write_settings_file(&path, "x").unwrap_err().kind(),
        Kind::Conflict
    );
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "mine");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn flags_and_environment_are_proposed_and_win() {
    let setup = setup(&[
        ("LIBVIRT_URI", "qemu+ssh://rack1/system"),
        ("AWS_DEFAULT_BUCKET", "images"),
        ("AWS_PROFILE", "work"),
        ("AWS_REGION", "eu-west-1"),
    ]);
    let mut answers = setup.proposed.clone();
    assert_eq!(answers.get(SetupField::Hosts), "qemu+ssh://rack1/system");
    assert_eq!(answers.get(SetupField::Bucket), "images");
    assert_eq!(answers.get(SetupField::Profile), "work");
    assert_eq!(setup.problem(&answers, SetupField::Region), None);
    answers.set(SetupField::Region, "eu-west-2");
    let problem = setup.problem(&answers, SetupField::Region).unwrap();
    assert_eq!(problem, "AWS_REGION is set and replaces it");
}

#[test]
fn what_is_found_is_proposed() {
    let base = crate::load(&Default::default(), &|_| None, None).unwrap();
    let propose = |discovery: &Discovery| SetupAnswers::propose(&base.settings, false, discovery);
    let mut discovery = Discovery {
        ssh_hosts: vec!["rack1".into()],
        owner: Some("qemu:qemu".into()),
        profiles: vec![AwsProfile {
            name: "work".into(),
            ..AwsProfile::default()
        }],
        ..Discovery::default()
    };
    // Only the operator knows which SSH host has libvirt.
    assert_eq!(propose(&discovery).get(SetupField::Hosts), "");
    assert_eq!(propose(&discovery).get(SetupField::Owner), "qemu:qemu");
    assert_eq!(propose(&discovery).get(SetupField::Profile), "work");
    discovery.has_libvirt = true;
    assert_eq!(propose(&discovery).get(SetupField::Hosts), "local");
    discovery.has_key_pair = true;
    assert_eq!(propose(&discovery).get(SetupField::Profile), "");
}

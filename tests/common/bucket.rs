//! A world's place in the lab's bucket, by another S3 client.

use std::process::{Command, Output};

use super::process::output;
use super::{World, lab};

impl World {
    /// The other S3 client; `{}` in an argument is this world's place in the bucket.
    #[track_caller]
    pub fn s5cmd(&self, args: &[&str]) -> Output {
        let place = format!("s3://{}/{}", lab("SNAPDECK_LAB_BUCKET"), self.tag);
        output(
            Command::new(lab("SNAPDECK_LAB_S5CMD"))
                .args(args.iter().map(|arg| arg.replace("{}", &place)))
                .env("AWS_ACCESS_KEY_ID", lab("SNAPDECK_LAB_S3_KEY"))
                .env("AWS_SECRET_ACCESS_KEY", lab("SNAPDECK_LAB_S3_SECRET"))
                .env("AWS_REGION", "us-east-1")
                .env("S3_ENDPOINT_URL", lab("SNAPDECK_LAB_S3")),
        )
    }

    /// Puts a file into the bucket as `name`, by the other client.
    pub fn put(&self, file: &str, name: &str) {
        // Raw: odd names are names.
        let put = self.s5cmd(&["cp", "--raw", file, &format!("{{}}/{name}.qcow2")]);
        assert!(put.status.success(), "{put:?}");
    }

    /// Gets an object by the other client; returns where it lies.
    pub fn get(&self, name: &str) -> String {
        // Not in a host's directory, whose name may be one that this client takes for a pattern.
        let file = self.dir.join(format!("{name}.got.qcow2"));
        let file = file.to_str().unwrap().to_owned();
        let get = self.s5cmd(&["cp", &format!("{{}}/{name}.qcow2"), &file]);
        assert!(get.status.success(), "{get:?}");
        file
    }

    pub fn is_in_bucket(&self, name: &str) -> bool {
        self.s5cmd(&["ls", &format!("{{}}/{name}.qcow2")])
            .status
            .success()
    }

    /// The object's entity tag, as the other client sees it.
    pub fn etag(&self, name: &str) -> String {
        let listed = self.s5cmd(&["ls", "-e", &format!("{{}}/{name}.qcow2")]);
        assert!(listed.status.success(), "{listed:?}");
        let line = String::from_utf8(listed.stdout).unwrap();
        // DATE TIME ETAG SIZE NAME
        line.split_whitespace().nth(2).unwrap().to_owned()
    }
}

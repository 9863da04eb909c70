"""A world of its own for tries: hosts of the lab with their directories and sandboxes, a prefix in the bucket, settings,
and operators with a home directory each."""

import os
import shutil
import subprocess

import golden
import s3
from host import Host
from lab import BUCKET, HOST_SCRIPT, KEY, LAB, NAMESPACE, PROJECT, SECRET, SNAPDECK, STORE, Output, output, run
from planted import Planted


class World:
    def __init__(self, tag, over_ssh=False, names=("alpha",), private=False, has_disk=False):
        self.tag = tag
        # A short path: those of sockets below it are limited to 107 bytes.
        self.dir = f"{LAB}/hosts/{self.tag}"
        # snapdeck does not use a longer one for its sockets.
        self.temp = f"{LAB}/t/{tag}"
        self.over_ssh = over_ssh
        self.endpoint = STORE
        self.firmware = "bios"
        # Of the processes of snapdeck, and with a local host of its programs.
        self.environment = {}
        os.makedirs(self.dir)
        self.hosts = []
        self.private_roots = []
        for name in names:
            root = f"{LAB}/{name}"
            if private:
                root = f"{self.dir}/{name}.host"
                # Its mount namespace must not keep the small disks of other rows.
                outside = ("nsenter", f"--mount={NAMESPACE}", "--") if NAMESPACE else ()
                run(*outside, HOST_SCRIPT, "start", root, f"{PROJECT}/.lab/capabilities")
                self.private_roots.append(root)
            self.hosts.append(Host(self, name, root, over_ssh, has_disk and not self.hosts))
        self.host = self.hosts[0]
        self.planted = Planted(self)
        self.configure()

    def id(self, short):
        """Returns the id of a sandbox, unique in the lab."""
        return f"{self.tag}-{short}"

    def key(self, file):
        return f"{self.tag}/{file}"

    def configure(self):
        """Writes the settings."""
        with open(f"{self.dir}/config.toml", "w") as file:
            file.write(
                "".join(host.settings() for host in self.hosts)
                + '[sandbox]\naccel = "qemu"\ncpus = 1\nmemory_mib = 64\n'
                + f'firmware = "{self.firmware}"\nnetwork = "none"\n'
                + f'[bucket]\nname = "{BUCKET}"\nprefix = "{self.tag}/"\nendpoint = "{self.endpoint}"\n'
                + f'region = "us-east-1"\naccess_key_id = "{KEY}"\nsecret_access_key = "{SECRET}"\n'
            )

    def env(self, operator):
        home = f"{self.dir}/{operator}"
        os.makedirs(home, exist_ok=True)
        os.makedirs(self.temp, exist_ok=True)
        return {
            "PATH": os.environ["PATH"],
            "HOME": home,
            "TMPDIR": self.temp,
            "SNAPDECK_CONFIG": f"{self.dir}/config.toml",
            **self.environment,
        }

    def start(self, *args, operator="home"):
        """Starts snapdeck in its own session."""
        child = subprocess.Popen(
            [SNAPDECK, *args], env=self.env(operator), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, start_new_session=True,
        )
        child.argv = ("snapdeck", *args)
        return child

    def snapdeck(self, *args, operator="home"):
        """Runs snapdeck to its end; once more if libvirtd crashed meanwhile and it says that it is unreachable."""
        crashes = [host.crashes() for host in self.hosts]
        ran = output(SNAPDECK, *args, env=self.env(operator))
        if ran.code == 5 and crashes != [host.crashes() for host in self.hosts]:
            ran = output(SNAPDECK, *args, env=self.env(operator))
        ran.argv = ("snapdeck", *args)
        return ran

    def make_sandbox(self, short, version, base="base", variables=False, running=False, host=None):
        """Creates a sandbox whose disk has the content of a version."""
        host, sandbox = host or self.host, self.id(short)
        host.remove_domain(sandbox)
        golden.make_overlay(host.disk(sandbox), host.snapshot(base), version)
        if variables:
            shutil.copyfile(golden.variables(version), host.nvram(sandbox))
        host.define(sandbox, host.disk(sandbox), host.nvram(sandbox) if variables else None)
        if running:
            host.virsh("start", sandbox)

    def remove_sandbox(self, short, host=None):
        host, sandbox = host or self.host, self.id(short)
        host.remove_domain(sandbox)
        for file in (host.disk(sandbox), host.nvram(sandbox)):
            if os.path.exists(file):
                os.remove(file)

    def remove_object(self, name):
        for key in (self.key(f"{name}.qcow2"), self.key(f"{name}.json"), *s3.keys(self.key(f"{name}_VARS"))):
            s3.delete(key)

    def clear_state(self):
        """Removes the operators' states and temporary files."""
        for entry in os.scandir(self.dir):
            if entry.name in ("home", "other"):
                shutil.rmtree(entry.path)
        shutil.rmtree(self.temp, ignore_errors=True)

    def stop(self):
        for host in self.hosts:
            if host.link:
                host.link.stop()
            for domain in host.domains():
                host.remove_domain(domain)
        for root in self.private_roots:
            output(HOST_SCRIPT, "stop", root)
        s3.remove_all(f"{self.tag}/")

    def remove(self):
        self.stop()
        shutil.rmtree(self.dir, ignore_errors=True)
        shutil.rmtree(self.temp, ignore_errors=True)


def finish(child, deadline):
    """Waits for a started snapdeck; returns its output, or None if it did not end in time and was killed."""
    try:
        stdout, stderr = child.communicate(timeout=deadline)
    except subprocess.TimeoutExpired:
        child.kill()
        child.communicate()
        return None
    return Output(child.argv, child.returncode, stdout, stderr)

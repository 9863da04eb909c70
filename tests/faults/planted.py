"""Things of others in a world: files, a domain, objects and an upload that look almost like snapdeck's. None may change."""

import os
import time

import golden
import s3

DAY = 86400


class Planted:
    def __init__(self, world):
        self.world = world
        # {path: identity}, {key: body}, {domain: XML}, [(key, upload id)]
        self.files, self.objects, self.definitions, self.uploads = {}, {}, {}, []
        for host in world.hosts:
            self.plant_files(host)
            self.plant_domain(host)
        for key, body in (
            ("theirs.json", b'{"written": "by another tool"}'),
            ("readme.txt", b"nothing of snapdeck"),
            ("sub/theirs.qcow2", b"not an image"),
        ):
            s3.put(world.key(key), body)
            self.objects[world.key(key)] = body
        for name in ("theirs.qcow2", "new.qcow2"):
            upload = s3.begin_upload(world.key(name), b"another machine's part")
            self.uploads.append((world.key(name), upload))

    def plant_files(self, host):
        sandbox = self.world.id("x")
        texts = {
            "snapshots/theirs.json": '{"written": "by another tool"}',
            "snapshots/notes.txt": "an operator's notes",
            "snapshots/.hidden": "hidden",
            "snapshots/.theirs.qcow2.pull/partial": "a half-done copy of an operator",
            "snapshots/.new.qcow2.partial": "a half-done copy of an operator",
            "sandboxes/.x.y.backup/keep.qcow2": "an operator's backup",
            f"sandboxes/.{sandbox}.old.backup/keep.qcow2": "an operator's backup",
            "sandboxes/iso/install.iso": "an image of a CD",
            "temp/snapdeck-my-disks/disk.img": "an operator's disk",
            "temp/unrelated": "of another program",
            "nvram/theirs_VARS.fd": "variables of another domain",
            "other/disk.img": "a disk elsewhere",
        }
        # Older than what prune --leftovers spares.
        old = time.time() - 3 * DAY
        for file, text in texts.items():
            path = host.path(file)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "w") as out:
                out.write(text)
            os.utime(path, (old, old))
            if os.path.dirname(file).count("/"):
                os.utime(os.path.dirname(path), (old, old))
            self.files[path] = identity(path)
        os.utime(host.path("temp/snapdeck-my-disks"), (old, old))

    def plant_domain(self, host):
        domain = self.world.id(f"foreign-{host.name}")
        disk = host.path("other", "foreign.qcow2")
        golden.make_overlay(disk, f"{golden.ROOT}/base.qcow2", "v1")
        host.define(domain, disk)
        self.files[disk] = identity(disk)
        self.definitions[(host, domain)] = host.virsh("dumpxml", "--inactive", domain)

    def remember(self, path):
        """Adds a file that must not change from now on."""
        self.files[path] = identity(path)

    def forget(self, path):
        self.files.pop(path, None)

    def violations(self):
        found = []
        for path, expected in self.files.items():
            now = identity(path)
            if now != expected:
                found.append(f"a file of others: {path} was {expected}, is {now}")
        for key, body in self.objects.items():
            now = s3.get(key)
            if now is None or now[1] != body:
                found.append(f"an object of others: {key} is {now and now[1][:100]}")
        for (host, domain), xml in self.definitions.items():
            ran = host.try_virsh("dumpxml", "--inactive", domain)
            if ran.stdout != xml:
                found.append(f"a domain of others: {domain} was {xml}, is {ran}")
        for key, upload in self.uploads:
            if not s3.upload_exists(key, upload):
                found.append(f"an upload of others: {upload} of {key} is gone")
        return found


def identity(path):
    """Returns inode, times, owner, mode and digest of a file."""
    try:
        stat = os.lstat(path)
    except FileNotFoundError:
        return "absent"
    return (stat.st_ino, stat.st_mtime_ns, stat.st_uid, oct(stat.st_mode), golden.sha256(path)[:16])

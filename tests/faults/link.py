"""The way to a host's sshd: a TCP port in front of it, which can be cut, slowed and blackholed. Each connection has its
own sshd (`sshd -i`) in the host's mount namespace."""

import getpass
import os
import shutil
import signal
import socket
import subprocess
import threading
import time

from lab import LAB, process_tree, run

SSHD = "/usr/sbin/sshd"
CHUNK = 1 << 16


def template_key(name):
    """Returns the path of a key that all links use."""
    path = f"{LAB}/keys/{name}"
    with KEY_LOCK:
        if not os.path.exists(path):
            os.makedirs(f"{LAB}/keys", exist_ok=True)
            run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "snapdeck-faults", "-f", path)
    return path


KEY_LOCK = threading.Lock()


class Link:
    def __init__(self, tools, holder):
        self.tools, self.holder = tools, holder
        self.lock = threading.Condition()
        # "closed": no connection; "frozen": connections stay open and no byte passes.
        self.fault, self.bytes_per_second = None, None
        # [(client, host, sshd)]
        self.connections = []
        # Environment of the host's programs, as NAME=VALUE.
        self.environment = []
        os.makedirs(f"{tools}/home", exist_ok=True)
        for name in ("host_key", "key"):
            for suffix in ("", ".pub"):
                shutil.copy(template_key(name) + suffix, f"{tools}/{name}{suffix}")
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = self.listener.getsockname()[1]
        self.configure()
        with open(f"{tools}/host_key.pub") as key, open(f"{tools}/known_hosts", "w") as known:
            known.write(f"[127.0.0.1]:{self.port} {key.read()}")
        threading.Thread(target=self.accept, daemon=True).start()

    def configure(self):
        """Writes the configuration, which takes effect with the next connection."""
        tools = self.tools
        environment = " ".join([f"HOME={tools}/home", f"PATH={os.environ['PATH']}", *self.environment])
        with open(f"{tools}/sshd_config", "w") as file:
            file.write(
                f"SetEnv {environment}\nHostKey {tools}/host_key\nAuthorizedKeysFile {tools}/key.pub\nStrictModes no\n"
                "UsePAM no\nPermitRootLogin yes\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n"
                "MaxStartups 100\nUseDNS no\nPrintMotd no\nSubsystem sftp internal-sftp\nLogLevel ERROR\n"
            )

    def uri(self):
        return (
            f"qemu+ssh://{getpass.getuser()}@127.0.0.1:{self.port}/system"
            f"?keyfile={self.tools}/key&known_hosts={self.tools}/known_hosts"
        )

    def accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            with self.lock:
                if self.fault == "closed":
                    client.close()
                    continue
                ours, theirs = socket.socketpair()
                argv = ["nsenter", f"--mount=/proc/{self.holder()}/ns/mnt", "--"]
                argv += [SSHD, "-i", "-f", f"{self.tools}/sshd_config", "-E", f"{self.tools}/log"]
                sshd = subprocess.Popen(argv, stdin=theirs, stdout=theirs, stderr=subprocess.DEVNULL)
                theirs.close()
                connection = (client, ours, sshd)
                self.connections.append(connection)
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for source, target in ((client, ours), (ours, client)):
                threading.Thread(target=self.forward, args=(source, target, connection), daemon=True).start()

    def forward(self, source, target, connection):
        try:
            while data := source.recv(CHUNK):
                with self.lock:
                    while self.fault == "frozen":
                        self.lock.wait()
                    rate = self.bytes_per_second
                if rate:
                    time.sleep(len(data) / rate)
                target.sendall(data)
        except OSError:
            pass
        self.close(connection)

    def close(self, connection):
        client, ours, sshd = connection
        for end in (client, ours):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        with self.lock:
            if connection not in self.connections:
                return
            self.connections.remove(connection)
        client.close()
        ours.close()
        try:
            sshd.wait(10)
        except subprocess.TimeoutExpired:
            sshd.kill()
            sshd.wait()

    def cut(self):
        """Closes all connections and refuses new ones."""
        with self.lock:
            self.fault = "closed"
            self.lock.notify_all()
            connections = list(self.connections)
        for connection in connections:
            self.close(connection)

    def freeze(self):
        """No byte passes any more."""
        with self.lock:
            self.fault = "frozen"

    def slow(self, bytes_per_second):
        with self.lock:
            self.bytes_per_second = bytes_per_second

    def restart_sshd(self):
        """Kills sshd with its sessions, but not the processes in them."""
        with self.lock:
            servers = [sshd.pid for _, _, sshd in self.connections]
        for pid in {pid for server in servers for pid in process_tree(server)}:
            try:
                with open(f"/proc/{pid}/comm") as file:
                    if file.read().strip() == "sshd":
                        os.kill(pid, signal.SIGKILL)
            except OSError:
                pass

    def heal(self):
        with self.lock:
            self.fault, self.bytes_per_second = None, None
            self.lock.notify_all()

    def stop(self):
        # Closed by shutdown, since accept does not end otherwise.
        try:
            self.listener.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.listener.close()
        self.heal()
        self.cut()

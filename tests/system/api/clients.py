"""Drives the whole life of a sandbox and a snapshot with the client that openapi-python-client generated.

    clients.py DIRECTORY_OF_THE_CLIENT URL TOKEN SANDBOX BASE
"""
import sys
import time

directory, url, token, sandbox, base = sys.argv[1:]
sys.path.insert(0, directory)

from snapdeck_client import AuthenticatedClient, Client
from snapdeck_client import models as m
from snapdeck_client.api.jobs import get_job, list_jobs
from snapdeck_client.api.sandboxes import (
    clone_sandbox, create_sandbox, destroy_sandbox, get_sandbox, list_sandboxes, pause_sandbox, resume_sandbox,
    set_sandbox, start_sandbox, stop_sandbox)
from snapdeck_client.api.service import get_host_info, get_status, healthz, readyz, run_doctor
from snapdeck_client.api.snapshots import (
    adopt_snapshot, create_snapshot, get_note, get_snapshot_info, pin_snapshot, prune_snapshots, pull_snapshot,
    push_snapshot, remove_snapshot, set_note, snapshot_exists, unpin_snapshot, upload_snapshot, verify_snapshot)

client = AuthenticatedClient(base_url=url, token=token, timeout=100, raise_on_unexpected_status=True)


def call(function, expected, *args, status=200, **parameters):
    """Calls a function of the client; returns the parsed body, which must be of the expected type."""
    response = function.sync_detailed(*args, client=parameters.pop("client", client), **parameters)
    assert response.status_code == status, (function.__name__, response.status_code, response.content)
    assert isinstance(response.parsed, expected), (function.__name__, response.parsed)
    return response.parsed


anyone = Client(base_url=url, raise_on_unexpected_status=True)
assert call(get_status, m.ServerStatus, client=anyone).status == "ok"
assert call(healthz, m.Health, client=anyone).status == "ok"
assert call(readyz, m.Readiness).ready
call(list_sandboxes, m.ErrorBody, client=Client(base_url=url), status=401)
assert call(get_host_info, m.HostInfo).metrics.current_snapshot_count == 1

# A sandbox is created, changed, used and copied.
body = m.CreateSandboxRequest(id=sandbox, snapshot=base, cpu_quota=1, memory_quota=64, start=False)
created = call(create_sandbox, m.CreatedSandbox, body=body, status=201)
assert (created.id, created.state, created.runner_state) == (sandbox, m.SandboxState.SHUT_OFF, m.RunnerState.STOPPED)
assert not call(create_sandbox, m.CreatedSandbox, body=body).changed
configured = call(set_sandbox, m.SandboxConfigured, sandbox, body=m.SetSandboxRequest(memory_quota=96))
assert configured.memory_bytes == 96 << 20
started = call(start_sandbox, m.ChangedSandbox, sandbox)
assert started.runner_state == m.RunnerState.STARTED
assert call(pause_sandbox, m.ChangedSandbox, sandbox).state == m.SandboxState.PAUSED
assert call(resume_sandbox, m.ChangedSandbox, sandbox).state == m.SandboxState.RUNNING
taken = call(create_snapshot, m.SnapshotCreated, body=m.CreateSnapshotRequest(sandbox_id=sandbox, name="live-v1"))
assert not taken.live_mode
stopped = call(stop_sandbox, m.ChangedSandbox, sandbox, body=m.StopSandboxRequest(force=True))
assert stopped.state == m.SandboxState.SHUT_OFF
assert sandbox in [one.id for one in call(list_sandboxes, list)]
assert call(get_sandbox, m.SandboxInfo, sandbox).daemon_version

# A snapshot is pushed, pulled, described, checked and removed.
push = m.PushSnapshotRequest(sandbox_id=sandbox, snapshot_name="app-v1")
job = call(push_snapshot, m.Job, body=push, prefer="respond-async", status=202)
deadline = time.monotonic() + 60
while job.state in (m.JobStatus.QUEUED, m.JobStatus.RUNNING) and time.monotonic() < deadline:
    time.sleep(0.1)
    job = call(get_job, m.Job, job.id)
assert isinstance(job.result, m.SnapshotPushed), job.result
assert call(push_snapshot, m.ErrorBody, body=push, status=409).code == "conflict"
presence = call(snapshot_exists, m.SnapshotPresence, snapshot="app-v1")
assert (presence.local, presence.bucket) == (False, True)
pulled = call(pull_snapshot, m.SnapshotPulled, body=m.PullSnapshotRequest(snapshot="app-v1"))
assert not pulled.skipped
verified = call(verify_snapshot, m.SnapshotVerified, body=m.VerifySnapshotRequest(snapshot="app-v1"))
assert verified.has_manifest
assert not call(adopt_snapshot, m.SnapshotAdopted, body=m.AdoptSnapshotRequest(snapshot="app-v1")).changed
call(upload_snapshot, m.ErrorBody, body=m.UploadSnapshotRequest(snapshot="app-v1"), status=409)
labels = m.NoteRequestLabels.from_dict({"os": "windows"})
noted = call(set_note, m.SnapshotAnnotations, body=m.NoteRequest(snapshot="app-v1", note="golden", labels=labels))
assert [one.annotations.notes for one in noted.locations] == ["golden", "golden"]
call(pin_snapshot, m.SnapshotAnnotations, body=m.PinRequest(snapshot="app-v1"))
call(remove_snapshot, m.ErrorBody, body=m.RemoveSnapshotRequest(snapshot="app-v1"), status=409)
assert all(one.annotations.pinned for one in call(get_note, m.SnapshotAnnotations, snapshot="app-v1").locations)
rule = m.PruneRequest(unused=True, local=False, bucket=True)
planned = call(prune_snapshots, m.PruneReport, body=rule)
assert ([one.name for one in planned.to_remove], planned.results) == (["live-v1"], []), planned
assert [one.name for one in planned.kept] == ["app-v1"]
rule.dry_run = False
pruned = call(prune_snapshots, m.PruneReport, body=rule)
assert [(one.snapshot_name, one.removed) for one in pruned.results] == [("live-v1", True)]
call(unpin_snapshot, m.SnapshotAnnotations, body=m.PinRequest(snapshot="app-v1"))
assert call(get_snapshot_info, m.SnapshotInfo, snapshot="app-v1").snapshot.name == "app-v1"
removed = call(remove_snapshot, m.SnapshotRemoved, body=m.RemoveSnapshotRequest(snapshot="app-v1", bucket=True))
assert removed.bucket
report = call(run_doctor, m.DoctorReport, body=m.DoctorRequest(local=False))
assert [one.host for one in report.health_checks] == [None]

clone = call(clone_sandbox, m.CreatedSandbox, sandbox, body=m.CloneSandboxRequest(new_id=f"{sandbox}-2"), status=201)
for one in (sandbox, clone.id):
    destroyed = call(destroy_sandbox, m.ChangedSandbox, one)
    assert (destroyed.changed, destroyed.runner_state) == (True, m.RunnerState.DESTROYED)
    assert not call(destroy_sandbox, m.ChangedSandbox, one).changed
call(get_sandbox, m.ErrorBody, sandbox, status=404)
operations = [job.operation for job in call(list_jobs, list)]
assert operations[0] == "new" and operations[-1] == "destroy", operations

//! libvirt: its library loaded on demand, a pool of connections, events, and safe wrappers of functions that no crate in use
//! wraps (close callback, backups, abort of a job, statistics of hosts and domains, guest agent). The system calls that no
//! crate wraps are in [`sys`]. No other crate has `unsafe` code.

mod loader;
mod pool;
mod sys;

use std::collections::HashMap;
use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use virt::connect::Connect;
use virt::domain::Domain;
use virt::error::{Error, ErrorNumber};

use loader::load;
pub use pool::{CallError, ConnectTarget, ConnectionPool, Lease};
pub use sys::{FileLease, begin_session, begin_sync, clone_range, set_mmap_threshold};

/// An event of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Event {
    /// A domain was defined, started, suspended, stopped, ...
    Lifecycle,
    /// The connection was closed (libvirtd ended, or the keepalive timed out).
    Closed,
}

type EventCallback = Arc<dyn Fn(Event) + Send + Sync>;

/// Starts libvirt's default event loop on a thread, once per process, and turns off libvirt's error output on stderr.
///
/// Call it before the first connection: earlier ones have neither events nor keepalive.
///
/// # Errors
/// An error of libvirt or of the thread; the same at each call.
fn start_event_loop() -> Result<(), String> {
    static STARTED: OnceLock<Result<(), String>> = OnceLock::new();
    STARTED
        .get_or_init(|| {
            virt::error::clear_error_callback();
            virt::event::event_register_default_impl().map_err(|error| error.to_string())?;
            std::thread::Builder::new()
                .name("libvirt-events".into())
                .spawn(|| {
                    loop {
                        if virt::event::event_run_default_impl().is_err() {
                            // Avoid a busy loop if poll(2) fails.
                            std::thread::sleep(Duration::from_millis(100));
                        }
                    }
                })
                .map(|_| ())
                .map_err(|error| error.to_string())
        })
        .clone()
}

/// Callbacks on a connection; dropping it removes them.
struct EventRegistration {
    connect: Connect,
    lifecycle_callback_id: c_int,
    has_close_callback: bool,
}

impl EventRegistration {
    /// Calls `on_event` for each event, on the thread of the event loop. It must not call libvirt.
    ///
    /// # Errors
    /// An error of libvirt if the driver has no domain events. A missing close callback is not an error.
    fn new(connect: &Connect, on_event: EventCallback) -> Result<Self, Error> {
        // SAFETY: with VIR_DOMAIN_EVENT_ID_LIFECYCLE libvirt calls back with exactly the parameters of
        // `on_lifecycle`; C code casts the pointer the same way (VIR_DOMAIN_EVENT_CALLBACK).
        let callback = unsafe {
            std::mem::transmute::<
                unsafe extern "C" fn(
                    virt_sys::virConnectPtr,
                    virt_sys::virDomainPtr,
                    c_int,
                    c_int,
                    *mut c_void,
                ) -> c_int,
                unsafe extern "C" fn(virt_sys::virConnectPtr, virt_sys::virDomainPtr, *mut c_void),
            >(on_lifecycle)
        };
        let opaque = into_opaque(&on_event);
        // SAFETY: the connection is alive. Without an error libvirt owns `opaque` and frees it with `free`.
        let lifecycle = unsafe {
            virt_sys::virConnectDomainEventRegisterAny(
                connect.as_ptr(),
                std::ptr::null_mut(),
                virt_sys::VIR_DOMAIN_EVENT_ID_LIFECYCLE as c_int,
                Some(callback),
                opaque,
                Some(free),
            )
        };
        if lifecycle < 0 {
            let error = Error::last_error();
            // SAFETY: after an error libvirt does not own it.
            unsafe { free(opaque) };
            return Err(error);
        }
        let opaque = into_opaque(&on_event);
        // SAFETY: as above.
        let closing = unsafe {
            virt_sys::virConnectRegisterCloseCallback(
                connect.as_ptr(),
                Some(on_close),
                opaque,
                Some(free),
            )
        };
        if closing < 0 {
            // SAFETY: as above.
            unsafe { free(opaque) };
        }
        Ok(Self {
            connect: connect.clone(),
            lifecycle_callback_id: lifecycle,
            has_close_callback: closing >= 0,
        })
    }
}

impl Drop for EventRegistration {
    fn drop(&mut self) {
        // SAFETY: the connection is alive (it is referenced) and has these callbacks. On a closed connection the calls
        // fail, and the connection frees the callbacks.
        unsafe {
            virt_sys::virConnectDomainEventDeregisterAny(
                self.connect.as_ptr(),
                self.lifecycle_callback_id,
            );
            if self.has_close_callback {
                virt_sys::virConnectUnregisterCloseCallback(self.connect.as_ptr(), Some(on_close));
            }
        }
    }
}

fn into_opaque(on_event: &EventCallback) -> *mut c_void {
    Box::into_raw(Box::new(on_event.clone())).cast()
}

unsafe extern "C" fn free(opaque: *mut c_void) {
    // SAFETY: it comes from `into_opaque` and is freed once.
    drop(unsafe { Box::from_raw(opaque.cast::<EventCallback>()) });
}

fn notify(opaque: *mut c_void, event: Event) {
    // SAFETY: it comes from `into_opaque` and is not freed while its callback runs.
    let on_event = unsafe { &*opaque.cast::<EventCallback>() };
    // A panic must not cross into C.
    let _ = catch_unwind(AssertUnwindSafe(|| on_event(event)));
}

unsafe extern "C" fn on_lifecycle(
    _connect: virt_sys::virConnectPtr,
    _domain: virt_sys::virDomainPtr,
    _event: c_int,
    _detail: c_int,
    opaque: *mut c_void,
) -> c_int {
    notify(opaque, Event::Lifecycle);
    0
}

unsafe extern "C" fn on_close(
    _connect: virt_sys::virConnectPtr,
    _reason: c_int,
    opaque: *mut c_void,
) {
    notify(opaque, Event::Closed);
}

/// Aborts the running job of a domain, such as a save.
///
/// # Errors
/// An error of libvirt, such as no running job.
pub fn abort_job(domain: &Domain) -> Result<(), Error> {
    // SAFETY: the domain is alive while it is borrowed.
    match unsafe { virt_sys::virDomainAbortJob(domain.as_ptr()) } {
        0.. => Ok(()),
        _ => Err(Error::last_error()),
    }
}

/// Starts a backup (libvirt, "Backup XML format"). It is a job of the domain until it is aborted. With `has_scratch`, the
/// scratch files exist already.
///
/// # Errors
/// An error of libvirt.
pub fn begin_backup(domain: &Domain, xml: &CStr, has_scratch: bool) -> Result<(), Error> {
    let flags = match has_scratch {
        true => virt_sys::VIR_DOMAIN_BACKUP_BEGIN_REUSE_EXTERNAL,
        false => 0,
    };
    // SAFETY: the domain is alive, the text ends with a zero, and there is no checkpoint.
    let code = unsafe {
        virt_sys::virDomainBackupBegin(domain.as_ptr(), xml.as_ptr(), std::ptr::null(), flags)
    };
    match code {
        0.. => Ok(()),
        _ => Err(Error::last_error()),
    }
}

/// Returns the XML of the running backup of a domain; `None` without one.
///
/// # Errors
/// An error of libvirt.
pub fn backup_xml(domain: &Domain) -> Result<Option<String>, Error> {
    // SAFETY: the domain is alive; the text is owned, ends with a zero, and is freed once.
    unsafe {
        let xml = virt_sys::virDomainBackupGetXMLDesc(domain.as_ptr(), 0);
        if xml.is_null() {
            let error = Error::last_error();
            let has_no_backup = error.code().is(ErrorNumber::NoDomainBackup);
            return if has_no_backup { Ok(None) } else { Err(error) };
        }
        let text = read_c_string(xml);
        nix::libc::free(xml.cast());
        Ok(Some(text))
    }
}

/// Returns the definition in the saved state of a domain; `None` if there is none, or libvirt cannot tell it.
///
/// # Errors
/// An error of libvirt.
pub fn saved_xml(domain: &Domain) -> Result<Option<String>, Error> {
    // SAFETY: the domain is alive; the text is owned, ends with a zero, and is freed once.
    unsafe {
        let xml = virt_sys::virDomainManagedSaveGetXMLDesc(domain.as_ptr(), 0);
        if xml.is_null() {
            let error = Error::last_error();
            let code = error.code();
            let is_absent = [ErrorNumber::OperationInvalid, ErrorNumber::NoSupport];
            let is_absent = is_absent.into_iter().any(|number| code.is(number));
            return if is_absent { Ok(None) } else { Err(error) };
        }
        let text = read_c_string(xml);
        nix::libc::free(xml.cast());
        Ok(Some(text))
    }
}

/// Freezes the file systems of a guest through its agent, until [`thaw`]; returns their number.
///
/// # Errors
/// An error of libvirt, such as no agent.
pub fn freeze(domain: &Domain) -> Result<u32, Error> {
    // SAFETY: the domain is alive; without a list it applies to all file systems.
    let count = unsafe { virt_sys::virDomainFSFreeze(domain.as_ptr(), std::ptr::null_mut(), 0, 0) };
    u32::try_from(count).map_err(|_| Error::last_error())
}

/// Thaws the file systems of a guest through its agent; returns the number of frozen ones.
///
/// # Errors
/// An error of libvirt, such as no answer of the agent.
pub fn thaw(domain: &Domain) -> Result<u32, Error> {
    // SAFETY: as above.
    let count = unsafe { virt_sys::virDomainFSThaw(domain.as_ptr(), std::ptr::null_mut(), 0, 0) };
    u32::try_from(count).map_err(|_| Error::last_error())
}

/// Statistics of a host by name.
pub type NodeStats = Vec<(String, u64)>;

/// Number of statistics of all memory and of all CPUs on Linux; requested first, because to ask for it is another call.
const LINUX_NODE_STATS: c_int = 4;
/// Limit of libvirt's protocol (remote_protocol.x, `REMOTE_NODE_CPU_STATS_MAX`).
const MAX_NODE_STATS: c_int = 16;

/// Returns the memory statistics of a host, such as `free` and `cached`, in KiB (virNodeGetMemoryStats).
///
/// # Errors
/// An error of libvirt.
pub fn memory_stats(connect: &Connect) -> Result<NodeStats, Error> {
    let all = virt_sys::VIR_NODE_MEMORY_STATS_ALL_CELLS;
    let read = |stat: &virt_sys::virNodeMemoryStats| (read_field(&stat.field), stat.value);
    // SAFETY: the connection is alive, and the buffer has room for `count` statistics.
    let call = |stats, count: &mut c_int| unsafe {
        virt_sys::virNodeGetMemoryStats(connect.as_ptr(), all, stats, count, 0)
    };
    node_stats(call, read)
}

/// Returns the times of all CPUs of a host since its start, such as `user` and `idle`, in nanoseconds (virNodeGetCPUStats).
///
/// # Errors
/// An error of libvirt, such as a driver without them.
pub fn cpu_stats(connect: &Connect) -> Result<NodeStats, Error> {
    let all = virt_sys::VIR_NODE_CPU_STATS_ALL_CPUS;
    let read = |stat: &virt_sys::virNodeCPUStats| (read_field(&stat.field), stat.value);
    // SAFETY: as above.
    let call = |stats, count: &mut c_int| unsafe {
        virt_sys::virNodeGetCPUStats(connect.as_ptr(), all, stats, count, 0)
    };
    node_stats(call, read)
}

/// Calls a function of libvirt that writes statistics into a buffer, whose length must be their number; without a buffer, it
/// returns the number. `call` must write no more than its count.
fn node_stats<T: Copy>(
    call: impl Fn(*mut T, &mut c_int) -> c_int,
    read: impl Fn(&T) -> (String, u64),
) -> Result<NodeStats, Error> {
    if let Some(stats) = read_node_stats(&call, &read, LINUX_NODE_STATS) {
        return Ok(stats);
    }
    let mut count = 0;
    if call(std::ptr::null_mut(), &mut count) < 0 {
        return Err(Error::last_error());
    }
    // The host says how many.
    read_node_stats(&call, &read, count.min(MAX_NODE_STATS)).ok_or_else(Error::last_error)
}

fn read_node_stats<T: Copy>(
    call: impl Fn(*mut T, &mut c_int) -> c_int,
    read: impl Fn(&T) -> (String, u64),
    mut count: c_int,
) -> Option<NodeStats> {
    let capacity = usize::try_from(count).unwrap_or(0);
    let mut stats: Vec<T> = Vec::with_capacity(capacity);
    if call(stats.as_mut_ptr(), &mut count) < 0 {
        return None;
    }
    // SAFETY: libvirt has written `count` statistics, at most the capacity.
    unsafe { stats.set_len(usize::try_from(count).unwrap_or(0).min(capacity)) };
    Some(stats.iter().map(read).collect())
}

fn read_field(field: &[c_char]) -> String {
    let bytes = field.iter().take_while(|c| **c != 0);
    bytes.map(|c| *c as u8 as char).collect()
}

/// A value of libvirt's typed parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// A number of any integer type; negative ones are skipped.
    Number(u64),
    /// A string.
    Text(String),
}

/// Typed parameters by name.
pub type TypedParams = HashMap<String, Value>;

/// Returns statistics (`VIR_DOMAIN_STATS_...`) of domains in one call, with the name of each domain. A domain that is busy
/// with another call has only those that need no answer of QEMU.
///
/// # Errors
/// An error of libvirt.
pub fn domain_stats(
    domains: &[Domain],
    kinds: c_uint,
) -> Result<Vec<(String, TypedParams)>, Error> {
    if domains.is_empty() {
        return Ok(Vec::new());
    }
    // SAFETY: the pointers are borrowed from `domains`, which outlives the call.
    let pointers = domains.iter().map(|domain| unsafe { domain.as_ptr() });
    let mut pointers: Vec<_> = pointers.chain([std::ptr::null_mut()]).collect();
    let mut records = std::ptr::null_mut();
    let flags = virt_sys::VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT;
    // SAFETY: the list ends with a null pointer; `records` is only read if the call succeeded.
    let count = unsafe {
        virt_sys::virDomainListGetStats(pointers.as_mut_ptr(), kinds, &mut records, flags)
    };
    let count = usize::try_from(count).map_err(|_| Error::last_error())?;
    // SAFETY: there are `count` records, which are freed below; the results do not borrow from them.
    unsafe {
        let read = |record: virt_sys::virDomainStatsRecordPtr| {
            let name = read_c_string(virt_sys::virDomainGetName((*record).dom));
            (name, read_typed_params((*record).params, (*record).nparams))
        };
        let stats = (0..count).map(|index| read(*records.add(index))).collect();
        virt_sys::virDomainStatsRecordListFree(records);
        Ok(stats)
    }
}

/// Returns data of the guest agent (`VIR_DOMAIN_GUEST_INFO_...`). libvirt's timeout is 5 s.
///
/// # Errors
/// An error of libvirt: no agent, no answer, or unsupported `kinds`.
pub fn guest_info(domain: &Domain, kinds: c_uint) -> Result<TypedParams, Error> {
    let (mut params, mut count) = (std::ptr::null_mut(), 0);
    // SAFETY: the domain is alive; after a success `params` is owned, and it is freed once.
    unsafe {
        let code =
            virt_sys::virDomainGetGuestInfo(domain.as_ptr(), kinds, &mut params, &mut count, 0);
        if code < 0 {
            return Err(Error::last_error());
        }
        let values = read_typed_params(params, count);
        virt_sys::virTypedParamsFree(params, count);
        Ok(values)
    }
}

/// Reads `count` parameters.
///
/// # Safety
/// `params` must point to `count` parameters of libvirt.
unsafe fn read_typed_params(params: virt_sys::virTypedParameterPtr, count: c_int) -> TypedParams {
    let count = usize::try_from(count).unwrap_or(0);
    let read = |index| {
        // SAFETY: guaranteed by the caller; the type selects the field of the union.
        unsafe {
            let param = &*params.add(index);
            let value = &param.value;
            let value = match param.type_ as c_uint {
                virt_sys::VIR_TYPED_PARAM_INT => Value::Number(value.i.try_into().ok()?),
                virt_sys::VIR_TYPED_PARAM_UINT => Value::Number(value.ui.into()),
                virt_sys::VIR_TYPED_PARAM_LLONG => Value::Number(value.l.try_into().ok()?),
                virt_sys::VIR_TYPED_PARAM_ULLONG => Value::Number(value.ul),
                virt_sys::VIR_TYPED_PARAM_STRING => Value::Text(read_c_string(value.s)),
                _ => return None,
            };
            Some((read_c_string(param.field.as_ptr()), value))
        }
    };
    (0..count).filter_map(read).collect()
}

/// # Safety
/// `chars` must be null or end with a zero.
unsafe fn read_c_string(chars: *const c_char) -> String {
    if chars.is_null() {
        return String::new();
    }
    // SAFETY: guaranteed by the caller.
    unsafe { CStr::from_ptr(chars) }
        .to_string_lossy()
        .into_owned()
}

//! What no crate in use wraps: libvirt's domain events, close callback, backups, abort of a job, a host's memory,
//! statistics, what a guest's agent says and does; the sharing of files' extents and their way to the disk; and a word
//! to the C library's allocator. No other folder has `unsafe`.

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
use virt::error::Error;

use loader::load;
pub use pool::{CallError, ConnectTarget, ConnectionPool, Lease};
pub use sys::{begin_sync, clone_range, set_mmap_threshold};

/// What a connection told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Event {
    /// A domain was defined, started, suspended, stopped, ...
    Lifecycle,
    /// The connection is gone (libvirtd ended, keepalive ran out).
    Closed,
}

type EventCallback = Arc<dyn Fn(Event) + Send + Sync>;

/// Starts libvirt's default event loop on a thread of its own, once a process, and switches off libvirt's
/// printing of errors to stderr. To be called before the first connection opens: what opens earlier has
/// neither events nor keepalive.
///
/// # Errors
/// What libvirt or the system said when it could not be started; the same every time.
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
                            // Never a busy loop, whatever is wrong with poll(2).
                            std::thread::sleep(Duration::from_millis(100));
                        }
                    }
                })
                .map(|_| ())
                .map_err(|error| error.to_string())
        })
        .clone()
}

/// Callbacks registered on a connection, until it is dropped.
struct EventRegistration {
    connect: Connect,
    lifecycle_callback_id: c_int,
    has_close_callback: bool,
}

impl EventRegistration {
    /// Calls `tell` from the event loop's thread for each event. It must not call libvirt.
    ///
    /// # Errors
    /// libvirt's, where the driver has no domain events. A driver without a close callback is fine.
    fn new(connect: &Connect, tell: EventCallback) -> Result<Self, Error> {
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
        let opaque = into_opaque(&tell);
        // SAFETY: the connection is alive; `opaque` stays ours until libvirt has taken it (no error), from
        // then on it is freed by `free` alone.
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
            // SAFETY: libvirt does not free what it did not take.
            unsafe { free(opaque) };
            return Err(error);
        }
        let opaque = into_opaque(&tell);
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
        // SAFETY: the connection is alive (we hold a reference) and the callbacks are ours. On a dead
        // connection these fail, which leaves nothing behind but what the connection frees itself.
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

fn into_opaque(tell: &EventCallback) -> *mut c_void {
    Box::into_raw(Box::new(tell.clone())).cast()
}

unsafe extern "C" fn free(opaque: *mut c_void) {
    // SAFETY: made by `into_opaque`, and freed once.
    drop(unsafe { Box::from_raw(opaque.cast::<EventCallback>()) });
}

fn notify(opaque: *mut c_void, event: Event) {
    // SAFETY: made by `into_opaque`, and not freed while its callback runs.
    let tell = unsafe { &*opaque.cast::<EventCallback>() };
    // A panic must not cross into C.
    let _ = catch_unwind(AssertUnwindSafe(|| tell(event)));
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

/// Ends the job that is under way on a domain (a save, say), which then fails.
///
/// # Errors
/// libvirt's, where there is none.
pub fn abort_job(domain: &Domain) -> Result<(), Error> {
    // SAFETY: the domain is alive while it is borrowed.
    match unsafe { virt_sys::virDomainAbortJob(domain.as_ptr()) } {
        0.. => Ok(()),
        _ => Err(Error::last_error()),
    }
}

/// Begins a backup as `xml` says (libvirt, "Backup XML format"). It is a job of the domain's until it is aborted.
/// `has_scratch`: are its scratch files there already?
///
/// # Errors
/// libvirt's.
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

/// The XML of the backup that is under way on a domain; `None` where none is.
///
/// # Errors
/// libvirt's.
pub fn backup_xml(domain: &Domain) -> Result<Option<String>, Error> {
    // SAFETY: the domain is alive; the text is ours, ends with a zero, and is freed once.
    unsafe {
        let xml = virt_sys::virDomainBackupGetXMLDesc(domain.as_ptr(), 0);
        if xml.is_null() {
            let error = Error::last_error();
            let none = error.code().is(virt::error::ErrorNumber::NoDomainBackup);
            return if none { Ok(None) } else { Err(error) };
        }
        let read = read_c_string(xml);
        nix::libc::free(xml.cast());
        Ok(Some(read))
    }
}

/// Has the agent of a guest bring its file systems to rest: nothing is written until [`thaw`]. Returns how many.
///
/// # Errors
/// libvirt's: no agent, or it cannot.
pub fn freeze(domain: &Domain) -> Result<u32, Error> {
    // SAFETY: the domain is alive; without a list all file systems are meant.
    let count = unsafe { virt_sys::virDomainFSFreeze(domain.as_ptr(), std::ptr::null_mut(), 0, 0) };
    u32::try_from(count).map_err(|_| Error::last_error())
}

/// Has the agent of a guest let its file systems go on; returns how many were at rest.
///
/// # Errors
/// libvirt's: no agent, or it does not answer.
pub fn thaw(domain: &Domain) -> Result<u32, Error> {
    // SAFETY: as above.
    let count = unsafe { virt_sys::virDomainFSThaw(domain.as_ptr(), std::ptr::null_mut(), 0, 0) };
    u32::try_from(count).map_err(|_| Error::last_error())
}

/// What a host's memory is used for: `free`, `cached`, ... in KiB (libvirt, virNodeGetMemoryStats).
///
/// # Errors
/// libvirt's.
pub fn memory_stats(connect: &Connect) -> Result<Vec<(String, u64)>, Error> {
    let all = virt_sys::VIR_NODE_MEMORY_STATS_ALL_CELLS;
    let mut count = 0;
    // SAFETY: the connection is alive; without a place for them libvirt tells how many there are.
    let told = unsafe {
        virt_sys::virNodeGetMemoryStats(connect.as_ptr(), all, std::ptr::null_mut(), &mut count, 0)
    };
    if told < 0 {
        return Err(Error::last_error());
    }
    let room = usize::try_from(count).unwrap_or(0);
    let mut stats: Vec<virt_sys::virNodeMemoryStats> = Vec::with_capacity(room);
    // SAFETY: there is room for `count` of them, and libvirt writes no more.
    let told = unsafe {
        virt_sys::virNodeGetMemoryStats(connect.as_ptr(), all, stats.as_mut_ptr(), &mut count, 0)
    };
    if told < 0 {
        return Err(Error::last_error());
    }
    // SAFETY: libvirt has written as many as it says, which is no more than there is room for.
    unsafe { stats.set_len(usize::try_from(count).unwrap_or(0).min(room)) };
    let named = stats.iter().map(|stat| {
        let field = stat.field.iter().take_while(|c| **c != 0);
        (field.map(|c| *c as u8 as char).collect(), stat.value)
    });
    Ok(named.collect())
}

/// A value of libvirt's typed parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// Of any integer type; one below 0 is left out.
    Number(u64),
    /// A string.
    Text(String),
}

/// Typed parameters by name.
pub type TypedParams = HashMap<String, Value>;

/// Statistics of the kinds `kinds` (`VIR_DOMAIN_STATS_...`) of these domains, in one call; each with the
/// domain's name. One that waits for another call has only what needs no answer of its QEMU.
///
/// # Errors
/// libvirt's.
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
    // SAFETY: the list ends with a null pointer; `records` is only read where the call succeeded.
    let count = unsafe {
        virt_sys::virDomainListGetStats(pointers.as_mut_ptr(), kinds, &mut records, flags)
    };
    let count = usize::try_from(count).map_err(|_| Error::last_error())?;
    // SAFETY: libvirt made `count` records, which are ours until they are freed below; nothing that is read
    // here borrows from them.
    unsafe {
        let read = |record: virt_sys::virDomainStatsRecordPtr| {
            let name = read_c_string(virt_sys::virDomainGetName((*record).dom));
            (name, read_typed_params((*record).params, (*record).nparams))
        };
        let found = (0..count).map(|index| read(*records.add(index))).collect();
        virt_sys::virDomainStatsRecordListFree(records);
        Ok(found)
    }
}

/// What the agent of a guest says of `kinds` (`VIR_DOMAIN_GUEST_INFO_...`). One that does not answer is given up
/// after libvirt's 5 s.
///
/// # Errors
/// libvirt's: no agent, it does not answer, or does not know all of `kinds`.
pub fn guest_info(domain: &Domain, kinds: c_uint) -> Result<TypedParams, Error> {
    let (mut params, mut count) = (std::ptr::null_mut(), 0);
    // SAFETY: the domain is alive; `params` is ours where the call succeeded, and freed once.
    unsafe {
        let code =
            virt_sys::virDomainGetGuestInfo(domain.as_ptr(), kinds, &mut params, &mut count, 0);
        if code < 0 {
            return Err(Error::last_error());
        }
        let found = read_typed_params(params, count);
        virt_sys::virTypedParamsFree(params, count);
        Ok(found)
    }
}

/// Reads `count` parameters.
///
/// # Safety
/// There are so many at `params`, as libvirt made them.
unsafe fn read_typed_params(params: virt_sys::virTypedParameterPtr, count: c_int) -> TypedParams {
    let count = usize::try_from(count).unwrap_or(0);
    let read = |index| {
        // SAFETY: as promised; the type says which part of the union was written.
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
/// `chars` is null or ends with a zero.
unsafe fn read_c_string(chars: *const c_char) -> String {
    if chars.is_null() {
        return String::new();
    }
    // SAFETY: as promised.
    unsafe { CStr::from_ptr(chars) }
        .to_string_lossy()
        .into_owned()
}

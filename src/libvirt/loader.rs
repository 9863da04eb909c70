//! libvirt's library, loaded when a host is first talked to. Linked, the system's loader would bring it and the sixty
//! libraries it needs before the first line of the program runs: two thirds of the time to the console's first frame, and
//! a program that does not start where there is none, though a bucket, a help text or a configuration need none.
//!
//! The functions below bear the names that the crate of libvirt's bindings links against, so the linker finds them here.
//! One that is missing still comes from the library, which is then linked: `tests/unprivileged/cli_usage.rs` notices.
#![allow(non_snake_case, missing_docs)]

use std::ffi::{c_char, c_int, c_uint, c_ulong, c_void};
use std::ptr::null_mut;
use std::sync::LazyLock;

use libloading::Library;
use virt_sys::*;

/// Of libvirt since its first release.
const LIBRARY: &str = "libvirt.so.0";

static SYMBOLS: LazyLock<Result<Symbols, String>> = LazyLock::new(|| {
    // SAFETY: libvirt's initialisers may run on any thread, and it is never unloaded.
    let library = unsafe { Library::new(LIBRARY) };
    library
        .and_then(Symbols::resolve)
        .map_err(|error| error.to_string())
});

/// Loads the library, where that has not been done. Tens of milliseconds, so not on the console's thread.
///
/// # Errors
/// The loader's; the same every time.
pub(crate) fn load() -> Result<(), String> {
    SYMBOLS.as_ref().map(|_| ()).map_err(Clone::clone)
}

/// What libvirt's functions return when they fail. It is returned where there is no library: nobody gets that far,
/// for [`load`] has failed before.
trait FailureValue {
    const FAILURE: Self;
}

impl FailureValue for () {
    const FAILURE: Self = ();
}

impl FailureValue for c_int {
    const FAILURE: Self = -1;
}

impl<T> FailureValue for *mut T {
    const FAILURE: Self = null_mut();
}

impl<T> FailureValue for *const T {
    const FAILURE: Self = std::ptr::null();
}

macro_rules! libvirt {
    ($(fn $name:ident($($argument:ident: $type:ty),*) $(-> $returned:ty)?;)*) => {
        struct Symbols {
            $($name: unsafe extern "C" fn($($type),*) $(-> $returned)?,)*
        }

        impl Symbols {
            fn resolve(library: Library) -> Result<Self, libloading::Error> {
                // SAFETY: these are the types of the bindings (below), made from libvirt's header.
                let found = unsafe { Self { $($name: *library.get(stringify!($name))?,)* } };
                std::mem::forget(library);
                Ok(found)
            }
        }

        $(
            const _: unsafe extern "C" fn($($type),*) $(-> $returned)? = virt_sys::$name;

            // SAFETY: nobody else defines a function of that name; it passes on what it gets.
            #[unsafe(no_mangle)]
            unsafe extern "C" fn $name($($argument: $type),*) $(-> $returned)? {
                match &*SYMBOLS {
                    // SAFETY: the caller keeps to libvirt's rules.
                    Ok(libvirt) => unsafe { (libvirt.$name)($($argument),*) },
                    Err(_) => FailureValue::FAILURE,
                }
            }
        )*
    };
}

libvirt! {
    fn virConnectClose(conn: virConnectPtr) -> c_int;
    fn virConnectDomainEventDeregisterAny(conn: virConnectPtr, callbackID: c_int) -> c_int;
    fn virConnectDomainEventRegisterAny(conn: virConnectPtr, dom: virDomainPtr, eventID: c_int, cb: virConnectDomainEventGenericCallback, opaque: *mut c_void, freecb: virFreeCallback) -> c_int;
    fn virConnectGetDomainCapabilities(conn: virConnectPtr, emulatorbin: *const c_char, arch: *const c_char, machine: *const c_char, virttype: *const c_char, flags: c_uint) -> *mut c_char;
    fn virConnectGetLibVersion(conn: virConnectPtr, libVer: *mut c_ulong) -> c_int;
    fn virConnectGetVersion(conn: virConnectPtr, hvVer: *mut c_ulong) -> c_int;
    fn virConnectIsAlive(conn: virConnectPtr) -> c_int;
    fn virConnectListAllDomains(conn: virConnectPtr, domains: *mut *mut virDomainPtr, flags: c_uint) -> c_int;
    fn virConnectOpen(name: *const c_char) -> virConnectPtr;
    fn virConnectRef(conn: virConnectPtr) -> c_int;
    fn virConnectRegisterCloseCallback(conn: virConnectPtr, cb: virConnectCloseFunc, opaque: *mut c_void, freecb: virFreeCallback) -> c_int;
    fn virConnectSetKeepAlive(conn: virConnectPtr, interval: c_int, count: c_uint) -> c_int;
    fn virConnectUnregisterCloseCallback(conn: virConnectPtr, cb: virConnectCloseFunc) -> c_int;
    fn virDomainAbortJob(dom: virDomainPtr) -> c_int;
    fn virDomainBackupBegin(domain: virDomainPtr, backupXML: *const c_char, checkpointXML: *const c_char, flags: c_uint) -> c_int;
    fn virDomainBackupGetXMLDesc(domain: virDomainPtr, flags: c_uint) -> *mut c_char;
    fn virDomainCreate(domain: virDomainPtr) -> c_int;
    fn virDomainCreateXML(conn: virConnectPtr, xmlDesc: *const c_char, flags: c_uint) -> virDomainPtr;
    fn virDomainDefineXML(conn: virConnectPtr, xml: *const c_char) -> virDomainPtr;
    fn virDomainDestroy(domain: virDomainPtr) -> c_int;
    fn virDomainFSFreeze(dom: virDomainPtr, mountpoints: *mut *const c_char, nmountpoints: c_uint, flags: c_uint) -> c_int;
    fn virDomainFSThaw(dom: virDomainPtr, mountpoints: *mut *const c_char, nmountpoints: c_uint, flags: c_uint) -> c_int;
    fn virDomainFree(domain: virDomainPtr) -> c_int;
    fn virDomainGetConnect(domain: virDomainPtr) -> virConnectPtr;
    fn virDomainGetGuestInfo(domain: virDomainPtr, types: c_uint, params: *mut virTypedParameterPtr, nparams: *mut c_int, flags: c_uint) -> c_int;
    fn virDomainGetInfo(domain: virDomainPtr, info: virDomainInfoPtr) -> c_int;
    fn virDomainGetJobInfo(dom: virDomainPtr, info: virDomainJobInfoPtr) -> c_int;
    fn virDomainGetName(domain: virDomainPtr) -> *const c_char;
    fn virDomainGetState(domain: virDomainPtr, state: *mut c_int, reason: *mut c_int, flags: c_uint) -> c_int;
    fn virDomainGetXMLDesc(domain: virDomainPtr, flags: c_uint) -> *mut c_char;
    fn virDomainHasManagedSaveImage(dom: virDomainPtr, flags: c_uint) -> c_int;
    fn virDomainListGetStats(doms: *mut virDomainPtr, stats: c_uint, retStats: *mut *mut virDomainStatsRecordPtr, flags: c_uint) -> c_int;
    fn virDomainLookupByName(conn: virConnectPtr, name: *const c_char) -> virDomainPtr;
    fn virDomainManagedSave(dom: virDomainPtr, flags: c_uint) -> c_int;
    fn virDomainManagedSaveRemove(dom: virDomainPtr, flags: c_uint) -> c_int;
    fn virDomainPMWakeup(domain: virDomainPtr, flags: c_uint) -> c_int;
    fn virDomainResume(domain: virDomainPtr) -> c_int;
    fn virDomainScreenshot(domain: virDomainPtr, stream: virStreamPtr, screen: c_uint, flags: c_uint) -> *mut c_char;
    fn virDomainShutdown(domain: virDomainPtr) -> c_int;
    fn virDomainStatsRecordListFree(stats: *mut virDomainStatsRecordPtr);
    fn virDomainSuspend(domain: virDomainPtr) -> c_int;
    fn virDomainUndefineFlags(domain: virDomainPtr, flags: c_uint) -> c_int;
    fn virEventRegisterDefaultImpl() -> c_int;
    fn virEventRunDefaultImpl() -> c_int;
    fn virGetLastError() -> virErrorPtr;
    fn virNodeGetInfo(conn: virConnectPtr, info: virNodeInfoPtr) -> c_int;
    fn virNodeGetMemoryStats(conn: virConnectPtr, cellNum: c_int, params: virNodeMemoryStatsPtr, nparams: *mut c_int, flags: c_uint) -> c_int;
    fn virSetErrorFunc(userData: *mut c_void, handler: virErrorFunc);
    fn virStreamAbort(st: virStreamPtr) -> c_int;
    fn virStreamEventRemoveCallback(stream: virStreamPtr) -> c_int;
    fn virStreamFinish(st: virStreamPtr) -> c_int;
    fn virStreamFree(st: virStreamPtr) -> c_int;
    fn virStreamNew(conn: virConnectPtr, flags: c_uint) -> virStreamPtr;
    fn virStreamRecv(st: virStreamPtr, data: *mut c_char, nbytes: usize) -> c_int;
    fn virTypedParamsFree(params: virTypedParameterPtr, nparams: c_int);
}

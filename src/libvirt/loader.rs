//! Loads libvirt's library at the first connection instead of linking it. Linked, it and its 60 dependencies would take two
//! thirds of the time to the console's first frame, and without it no command would start, not even help and those that
//! need only the bucket or the settings.
//!
//! The functions below have the names that the bindings link against, so that the linker uses them. A missing one would
//! link the library again; `tests/unprivileged/cli_usage.rs` checks that.
#![allow(non_snake_case, missing_docs)]

use std::ffi::{c_char, c_int, c_uchar, c_uint, c_ulong, c_void};
use std::ptr::null_mut;
use std::sync::LazyLock;

use libloading::Library;
use virt_sys::*;

/// The name since libvirt's first release.
const LIBRARY: &str = "libvirt.so.0";

static SYMBOLS: LazyLock<Result<Symbols, String>> = LazyLock::new(|| {
    // SAFETY: libvirt's initialisers can run on any thread, and it is never unloaded.
    let library = unsafe { Library::new(LIBRARY) };
    library
        .and_then(Symbols::resolve)
        .map_err(|error| error.to_string())
});

/// Loads the library if it is not loaded. Takes tens of milliseconds, so do not call it on the console's thread.
///
/// # Errors
/// An error of the loader; the same at each call.
pub(crate) fn load() -> Result<(), String> {
    SYMBOLS.as_ref().map(|_| ()).map_err(Clone::clone)
}

/// The return value of a failed libvirt function, for calls without the library. They do not happen, because [`load`]
/// fails before.
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

/// Returns the number of elements of a list that libvirt has allocated, which ends with null, and at most `returned`. For a
/// remote host that is what its libvirtd says, whatever it has sent.
///
/// # Safety
/// `list` is null, or leads to such a list if `returned` is above 0.
unsafe fn list_length<T>(list: *mut *mut *mut T, returned: c_int) -> c_int {
    if list.is_null() || returned <= 0 {
        return returned;
    }
    // SAFETY: by the contract; no element behind the first null is read.
    let is_element = |index: &c_int| unsafe {
        let elements = *list;
        !elements.is_null() && !(*elements.add(*index as usize)).is_null()
    };
    (0..returned).take_while(is_element).count() as c_int
}

macro_rules! libvirt {
    ($(fn $name:ident($($argument:ident: $type:ty),*) $(-> $returned:ty)? $([list $list:ident])?;)*) => {
        struct Symbols {
            $($name: unsafe extern "C" fn($($type),*) $(-> $returned)?,)*
        }

        impl Symbols {
            fn resolve(library: Library) -> Result<Self, libloading::Error> {
                // SAFETY: the types are those of the bindings (see below), which come from libvirt's header.
                let symbols = unsafe { Self { $($name: *library.get(stringify!($name))?,)* } };
                std::mem::forget(library);
                Ok(symbols)
            }
        }

        $(
            const _: unsafe extern "C" fn($($type),*) $(-> $returned)? = virt_sys::$name;

            // SAFETY: no other code defines a function of that name; it passes on its arguments.
            #[unsafe(no_mangle)]
            unsafe extern "C" fn $name($($argument: $type),*) $(-> $returned)? {
                match &*SYMBOLS {
                    Ok(libvirt) => {
                        // SAFETY: the caller follows libvirt's rules.
                        let returned = unsafe { (libvirt.$name)($($argument),*) };
                        // SAFETY: libvirt has returned this list.
                        $(let returned = unsafe { list_length($list, returned) };)?
                        returned
                    }
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
    fn virConnectListAllDomains(conn: virConnectPtr, domains: *mut *mut virDomainPtr, flags: c_uint) -> c_int [list domains];
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
    fn virDomainGetAutostart(domain: virDomainPtr, autostart: *mut c_int) -> c_int;
    fn virDomainGetConnect(domain: virDomainPtr) -> virConnectPtr;
    fn virDomainGetGuestInfo(domain: virDomainPtr, types: c_uint, params: *mut virTypedParameterPtr, nparams: *mut c_int, flags: c_uint) -> c_int;
    fn virDomainGetInfo(domain: virDomainPtr, info: virDomainInfoPtr) -> c_int;
    fn virDomainGetJobInfo(dom: virDomainPtr, info: virDomainJobInfoPtr) -> c_int;
    fn virDomainGetName(domain: virDomainPtr) -> *const c_char;
    fn virDomainGetState(domain: virDomainPtr, state: *mut c_int, reason: *mut c_int, flags: c_uint) -> c_int;
    fn virDomainGetUUID(domain: virDomainPtr, uuid: *mut c_uchar) -> c_int;
    fn virDomainGetVcpusFlags(domain: virDomainPtr, flags: c_uint) -> c_int;
    fn virDomainGetXMLDesc(domain: virDomainPtr, flags: c_uint) -> *mut c_char;
    fn virDomainHasManagedSaveImage(dom: virDomainPtr, flags: c_uint) -> c_int;
    fn virDomainIsPersistent(dom: virDomainPtr) -> c_int;
    fn virDomainListAllSnapshots(domain: virDomainPtr, snaps: *mut *mut virDomainSnapshotPtr, flags: c_uint) -> c_int [list snaps];
    fn virDomainListGetStats(doms: *mut virDomainPtr, stats: c_uint, retStats: *mut *mut virDomainStatsRecordPtr, flags: c_uint) -> c_int [list retStats];
    fn virDomainLookupByName(conn: virConnectPtr, name: *const c_char) -> virDomainPtr;
    fn virDomainLookupByUUIDString(conn: virConnectPtr, uuid: *const c_char) -> virDomainPtr;
    fn virDomainManagedSave(dom: virDomainPtr, flags: c_uint) -> c_int;
    fn virDomainManagedSaveGetXMLDesc(domain: virDomainPtr, flags: c_uint) -> *mut c_char;
    fn virDomainManagedSaveRemove(dom: virDomainPtr, flags: c_uint) -> c_int;
    fn virDomainPMWakeup(domain: virDomainPtr, flags: c_uint) -> c_int;
    fn virDomainRename(dom: virDomainPtr, new_name: *const c_char, flags: c_uint) -> c_int;
    fn virDomainReset(domain: virDomainPtr, flags: c_uint) -> c_int;
    fn virDomainResume(domain: virDomainPtr) -> c_int;
    fn virDomainScreenshot(domain: virDomainPtr, stream: virStreamPtr, screen: c_uint, flags: c_uint) -> *mut c_char;
    fn virDomainSetAutostart(domain: virDomainPtr, autostart: c_int) -> c_int;
    fn virDomainSetMemoryFlags(domain: virDomainPtr, memory: c_ulong, flags: c_uint) -> c_int;
    fn virDomainSetVcpusFlags(domain: virDomainPtr, nvcpus: c_uint, flags: c_uint) -> c_int;
    fn virDomainShutdown(domain: virDomainPtr) -> c_int;
    fn virDomainSnapshotFree(snapshot: virDomainSnapshotPtr) -> c_int;
    fn virDomainSnapshotGetXMLDesc(snapshot: virDomainSnapshotPtr, flags: c_uint) -> *mut c_char;
    fn virDomainStatsRecordListFree(stats: *mut virDomainStatsRecordPtr);
    fn virDomainSuspend(domain: virDomainPtr) -> c_int;
    fn virDomainUndefineFlags(domain: virDomainPtr, flags: c_uint) -> c_int;
    fn virEventRegisterDefaultImpl() -> c_int;
    fn virEventRunDefaultImpl() -> c_int;
    fn virGetLastError() -> virErrorPtr;
    fn virNodeGetCPUStats(conn: virConnectPtr, cpuNum: c_int, params: virNodeCPUStatsPtr, nparams: *mut c_int, flags: c_uint) -> c_int;
    fn virNodeGetInfo(conn: virConnectPtr, info: virNodeInfoPtr) -> c_int;
    fn virNodeGetMemoryStats(conn: virConnectPtr, cellNum: c_int, params: virNodeMemoryStatsPtr, nparams: *mut c_int, flags: c_uint) -> c_int;
    fn virSetErrorFunc(userData: *mut c_void, handler: virErrorFunc);
    fn virStoragePoolFree(pool: virStoragePoolPtr) -> c_int;
    fn virStoragePoolGetXMLDesc(pool: virStoragePoolPtr, flags: c_uint) -> *mut c_char;
    fn virStoragePoolLookupByName(conn: virConnectPtr, name: *const c_char) -> virStoragePoolPtr;
    fn virStorageVolFree(vol: virStorageVolPtr) -> c_int;
    fn virStorageVolGetPath(vol: virStorageVolPtr) -> *mut c_char;
    fn virStorageVolLookupByName(pool: virStoragePoolPtr, name: *const c_char) -> virStorageVolPtr;
    fn virStreamAbort(st: virStreamPtr) -> c_int;
    fn virStreamEventRemoveCallback(stream: virStreamPtr) -> c_int;
    fn virStreamFinish(st: virStreamPtr) -> c_int;
    fn virStreamFree(st: virStreamPtr) -> c_int;
    fn virStreamNew(conn: virConnectPtr, flags: c_uint) -> virStreamPtr;
    fn virStreamRecv(st: virStreamPtr, data: *mut c_char, nbytes: usize) -> c_int;
    fn virTypedParamsFree(params: virTypedParameterPtr, nparams: c_int);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_ends_where_it_ends_whatever_its_length_is_said_to_be() {
        let mut element = 0_u8;
        let mut elements = [
            &raw mut element,
            &raw mut element,
            null_mut(),
            &raw mut element,
        ];
        let mut list = elements.as_mut_ptr();
        for (returned, length) in [(100_000, 2), (2, 2), (1, 1), (0, 0), (-1, -1)] {
            // SAFETY: the list ends with null.
            assert_eq!(unsafe { list_length(&raw mut list, returned) }, length);
        }
        let mut missing: *mut *mut u8 = null_mut();
        // SAFETY: there is no list.
        assert_eq!(unsafe { list_length(&raw mut missing, 3) }, 0);
        // SAFETY: as above; the caller asks only for the number.
        assert_eq!(unsafe { list_length::<u8>(null_mut(), 3) }, 3);
    }
}

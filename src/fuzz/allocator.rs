//! A global allocator that counts the bytes of each thread.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// A larger request fails, as on a machine without so much memory.
const MAX_REQUEST_BYTES: usize = 4 << 30;

struct CountingAllocator;

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

thread_local! {
    static LIVE_BYTES: Cell<usize> = const { Cell::new(0) };
    static PEAK_BYTES: Cell<usize> = const { Cell::new(0) };
}

/// Starts to count this thread's bytes from 0.
pub(crate) fn reset() {
    // What was allocated before may be freed: never below 0.
    LIVE_BYTES.set(1 << 40);
    PEAK_BYTES.set(1 << 40);
}

/// Returns the most bytes that this thread has had allocated at a time since [`reset`].
pub(crate) fn peak_bytes() -> usize {
    PEAK_BYTES.get() - (1 << 40)
}

fn add(bytes: usize) {
    // Without a thread-local the thread is ending.
    let _ = LIVE_BYTES.try_with(|live| {
        live.set(live.get().wrapping_add(bytes));
        let _ = PEAK_BYTES.try_with(|peak| peak.set(peak.get().max(live.get())));
    });
}

fn subtract(bytes: usize) {
    let _ = LIVE_BYTES.try_with(|live| live.set(live.get().wrapping_sub(bytes)));
}

// SAFETY: all calls are passed to the system's allocator, with the layouts as they came.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if layout.size() > MAX_REQUEST_BYTES {
            return std::ptr::null_mut();
        }
        add(layout.size());
        // SAFETY: as above.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if layout.size() > MAX_REQUEST_BYTES {
            return std::ptr::null_mut();
        }
        add(layout.size());
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        subtract(layout.size());
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if size > MAX_REQUEST_BYTES {
            return std::ptr::null_mut();
        }
        subtract(layout.size());
        add(size);
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

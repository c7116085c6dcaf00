//! How the allocator treats memory that is freed. It must not know what the memory is for.

/// The size, in bytes, of the block by which glibc learns what is large. See mallopt(3), "dynamic mmap threshold".
const LARGE: usize = 2 << 20;

/// Lets glibc keep up to 4 MiB of freed memory at the end of each of its arenas. By default it gives back what is more than 128 KiB,
/// at once, and the buffers of a fast upload have to be made of fresh pages again and again. When a block that it has from the
/// system is freed, glibc takes its size for usual from then on, and twice of it for what is worth giving back. To another
/// allocator this is a block that comes and goes.
pub(super) fn keep_freed_memory() {
    drop(std::hint::black_box(Vec::<u8>::with_capacity(LARGE)));
}

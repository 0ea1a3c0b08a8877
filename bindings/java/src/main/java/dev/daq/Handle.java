package dev.daq;

import java.lang.ref.PhantomReference;
import java.lang.ref.ReferenceQueue;
import java.util.Collections;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.locks.Lock;
import java.util.concurrent.locks.ReentrantReadWriteLock;
import java.util.function.LongFunction;

/**
 * A model of the native library. It is closed once: by its {@link Model}, or after that was collected
 * without having been closed. Closing waits for calls that are using it. (Java 8 has no Cleaner.)
 */
final class Handle extends PhantomReference<Model> {
    private static final ReferenceQueue<Model> COLLECTED = new ReferenceQueue<>();
    private static final Set<Handle> OPEN = Collections.newSetFromMap(new ConcurrentHashMap<>());

    static {
        Thread closer = new Thread(Handle::closeCollected, "daq-closer");
        closer.setDaemon(true);
        closer.start();
    }

    private final ReentrantReadWriteLock lock = new ReentrantReadWriteLock();
    private long handle;

    Handle(Model owner, long handle) {
        super(owner, COLLECTED);
        this.handle = handle;
        OPEN.add(this);
    }

    /** Calls a native function with the handle, which stays open meanwhile. */
    <T> T use(LongFunction<T> call) {
        Lock reading = lock.readLock();
        reading.lock();
        try {
            if (handle == 0) {
                throw new IllegalStateException("the model is closed");
            }
            return call.apply(handle);
        } finally {
            reading.unlock();
        }
    }

    void close() {
        lock.writeLock().lock();
        try {
            if (handle != 0) {
                Native.close(handle);
                handle = 0;
            }
        } finally {
            lock.writeLock().unlock();
        }
        OPEN.remove(this);
    }

    /** How many models are open; for tests. */
    static int open() {
        return OPEN.size();
    }

    private static void closeCollected() {
        while (true) {
            try {
                ((Handle) COLLECTED.remove()).close();
            } catch (InterruptedException e) {
                // Nobody means this thread; the next model may need it.
            }
        }
    }
}

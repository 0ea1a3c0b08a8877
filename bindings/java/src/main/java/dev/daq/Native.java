package dev.daq;

import java.io.IOException;
import java.io.InputStream;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.util.Locale;

/** The functions of the native library. A handle must be open while it is used; {@link Handle} sees to it. */
final class Native {
    static {
        load();
    }

    private Native() {}

    /** The library is, in this order: the file that the property dev.daq.library names, Android's, the jar's. */
    private static void load() {
        String given = System.getProperty("dev.daq.library");
        if (given != null) {
            System.load(given);
            return;
        }
        if ("The Android Project".equals(System.getProperty("java.vendor"))) {
            System.loadLibrary("daq_java");
            return;
        }
        String os = System.getProperty("os.name", "").toLowerCase(Locale.ROOT);
        String kind = os.startsWith("mac") ? "macos" : os.startsWith("win") ? "windows" : "linux";
        String name = System.mapLibraryName("daq_java");
        String resource = "/dev/daq/native/" + kind + "-" + System.getProperty("os.arch") + "/" + name;
        try (InputStream library = Native.class.getResourceAsStream(resource)) {
            if (library == null) {
                throw new UnsatisfiedLinkError(
                        "this jar has no " + resource + "; build it on such a machine, or name the library"
                                + " by the system property dev.daq.library");
            }
            Path file = Files.createTempFile("daq", name);
            try {
                Files.copy(library, file, StandardCopyOption.REPLACE_EXISTING);
                System.load(file.toString());
            } finally {
                // Where a loaded library cannot be removed, it is when the machine ends.
                if (!file.toFile().delete()) {
                    file.toFile().deleteOnExit();
                }
            }
        } catch (IOException e) {
            throw new UncheckedIOException("cannot unpack the native library", e);
        }
    }

    /** options: threads, backend, preference, and 1 where floats may be computed with 16 bits. */
    static native long openFile(String path, int[] options);

    static native long openBytes(byte[] bytes, int[] options);

    static native long openDescriptor(int fd, long offset, long length, int[] options);

    static native void close(long handle);

    /** How many inputs or outputs. */
    static native int count(long handle, boolean output);

    static native String name(long handle, boolean output, int index);

    /** Element type, layout, whether it has a scale, zero point, then the shape. */
    static native int[] describe(long handle, boolean output, int index);

    static native float scale(long handle, boolean output, int index);

    /** From a float[] or byte[] to a new one. */
    static native Object predictArray(
            long handle, Object input, boolean codesIn, boolean codesOut, int output);

    /** places: position and number of elements of each input, then of each output. */
    static native void predictBuffers(
            long handle, Object[] inputs, Object[] outputs, int[] places, boolean codesIn, boolean codesOut);
}

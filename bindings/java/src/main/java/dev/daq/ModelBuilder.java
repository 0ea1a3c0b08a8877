package dev.daq;

import java.io.File;
import java.nio.ByteBuffer;
import java.util.Objects;
import org.jetbrains.annotations.NotNull;

/**
 * Opens models.
 *
 * <pre>{@code
 * try (Model model = new ModelBuilder().readFile("mobilenet_v2.daq").compile()) {
 *     float[] scores = model.predict(pixels);
 * }
 * }</pre>
 */
public final class ModelBuilder {
    /** Answer as fast as possible. */
    public static final int PREFERENCE_FAST_SINGLE_ANSWER = 1;
    /** Keep up with a stream of pictures. */
    public static final int PREFERENCE_SUSTAINED_SPEED = 2;
    /** Use little power; on the CPU one thread, whatever {@link #threads} says. */
    public static final int PREFERENCE_LOW_POWER = 0;

    /** Where a model runs. NNAPI is for native libraries that were built with the feature nnapi. */
    public enum Backend {
        /** On daq's own kernels, exactly. */
        CPU,
        /** On Android's accelerators, with what they do not take on the CPU. */
        NNAPI,
        /** On NNAPI where the phone has it, else on the CPU. */
        AUTO
    }

    /** Opens a model; see {@link Native#openFile} for the options. */
    private interface Source {
        long open(int[] options);
    }

    private Source source;
    private String output;
    private int threads = 1;
    private Backend backend = Backend.CPU;
    private boolean allowFp16;

    /** A builder with nothing to build yet. */
    public ModelBuilder() {}

    /** Takes a .daq file. It must not be changed in place while the model is open. */
    @NotNull
    public ModelBuilder readFile(@NotNull String path) {
        Objects.requireNonNull(path, "path");
        source = options -> Native.openFile(path, options);
        return this;
    }

    /** Takes a .daq file. */
    @NotNull
    public ModelBuilder readFile(@NotNull File file) {
        return readFile(file.getPath());
    }

    /** Takes the bytes of a .daq file. */
    @NotNull
    public ModelBuilder readBuffer(@NotNull byte[] bytes) {
        Objects.requireNonNull(bytes, "bytes");
        source = options -> Native.openBytes(bytes, options);
        return this;
    }

    /** Takes what is left of a buffer, whose position stays as it is. */
    @NotNull
    public ModelBuilder readBuffer(@NotNull ByteBuffer buffer) {
        byte[] bytes = new byte[buffer.remaining()];
        buffer.duplicate().get(bytes);
        return readBuffer(bytes);
    }

    /**
     * Takes part of an open file, such as an asset of an Android package that is stored without
     * compression. The descriptor must be open until {@link #compile}, and stays the caller's.
     */
    @NotNull
    public ModelBuilder readFileDescriptor(int fd, long offset, long length) {
        source = options -> Native.openDescriptor(fd, offset, length, options);
        return this;
    }

    /** Which output predict gives, by name; the first where this is not called. */
    @NotNull
    public ModelBuilder setOutput(@NotNull String name) {
        output = Objects.requireNonNull(name, "name");
        return this;
    }

    /** Where the model runs; the CPU where this is not called. */
    @NotNull
    public ModelBuilder backend(@NotNull Backend where) {
        backend = Objects.requireNonNull(where, "where");
        return this;
    }

    /** Whether NNAPI may compute floats in 16 bits; results on the CPU do not depend on it. */
    @NotNull
    public ModelBuilder allowFp16(boolean allow) {
        allowFp16 = allow;
        return this;
    }

    /** Threads that share the work of one call, 1 to 256. The results are the same bit for bit. */
    @NotNull
    public ModelBuilder threads(int count) {
        threads = count;
        return this;
    }

    /**
     * Opens the model.
     *
     * @param preference one of the constants above; NNAPI's drivers are told
     * @throws DaqException where the model cannot be used, or NNAPI was asked for and is not there
     * @throws IllegalArgumentException where the output or the preference is unknown, or the native
     *     library was built without the backend
     * @throws IllegalStateException where nothing was read
     */
    @NotNull
    public Model compile(int preference) {
        if (preference < PREFERENCE_LOW_POWER || preference > PREFERENCE_SUSTAINED_SPEED) {
            throw new IllegalArgumentException("there is no preference " + preference);
        }
        if (source == null) {
            throw new IllegalStateException("no model: call readFile or readBuffer first");
        }
        int used = preference == PREFERENCE_LOW_POWER ? 1 : threads;
        int[] options = {used, backend.ordinal(), preference, allowFp16 ? 1 : 0};
        return new Model(source.open(options), output);
    }

    /** Opens the model for fast answers. */
    @NotNull
    public Model compile() {
        return compile(PREFERENCE_FAST_SINGLE_ANSWER);
    }
}

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
    /** Use little power: one thread, whatever {@link #threads} says. */
    public static final int PREFERENCE_LOW_POWER = 0;

    /** Opens a model with a number of threads. */
    private interface Source {
        long open(int threads);
    }

    private Source source;
    private String output;
    private int threads = 1;

    /** A builder with nothing to build yet. */
    public ModelBuilder() {}

    /** Takes a .daq file. It must not be changed in place while the model is open. */
    @NotNull
    public ModelBuilder readFile(@NotNull String path) {
        Objects.requireNonNull(path, "path");
        source = threads -> Native.openFile(path, threads);
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
        source = threads -> Native.openBytes(bytes, threads);
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
        source = threads -> Native.openDescriptor(fd, offset, length, threads);
        return this;
    }

    /** Which output predict gives, by name; the first where this is not called. */
    @NotNull
    public ModelBuilder setOutput(@NotNull String name) {
        output = Objects.requireNonNull(name, "name");
        return this;
    }

    /**
     * Whether floats may be computed in 16 bits. A permission: this runtime's results never depend on
     * it, and an 8-bit model has no floats to save.
     */
    @NotNull
    public ModelBuilder allowFp16(boolean allow) {
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
     * @param preference one of the constants above
     * @throws DaqException where the model cannot be used
     * @throws IllegalArgumentException where the output or the preference is unknown
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
        return new Model(source.open(preference == PREFERENCE_LOW_POWER ? 1 : threads), output);
    }

    /** Opens the model for fast answers. */
    @NotNull
    public Model compile() {
        return compile(PREFERENCE_FAST_SINGLE_ANSWER);
    }
}

package dev.daq;

import java.nio.Buffer;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.FloatBuffer;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.Objects;
import org.jetbrains.annotations.NotNull;
import org.jetbrains.annotations.Nullable;

/**
 * An open model. Any number of threads may use it at the same time.
 *
 * <p>There are four ways to predict: real numbers (float) or codes (byte) in, real numbers or codes out.
 * A byte is an unsigned code, 0 to 255: {@code real = ((code & 0xff) - zeroPoint) * scale} of the
 * {@link Tensor}.
 *
 * <p>Arrays are copied to the library and back. Direct buffers are used where they lie.
 */
public final class Model implements AutoCloseable {
    private final Handle handle;
    private final List<Tensor> inputs;
    private final List<Tensor> outputs;
    private final int output;

    Model(long opened, @Nullable String output) {
        handle = new Handle(this, opened);
        try {
            inputs = tensors(false);
            outputs = tensors(true);
            this.output = output == null ? 0 : find(output);
        } catch (RuntimeException e) {
            handle.close();
            throw e;
        }
    }

    private List<Tensor> tensors(boolean output) {
        return handle.use(h -> {
            List<Tensor> all = new ArrayList<>();
            for (int i = 0; i < Native.count(h, output); i++) {
                all.add(new Tensor(h, output, i));
            }
            return Collections.unmodifiableList(all);
        });
    }

    private int find(String name) {
        List<String> names = new ArrayList<>();
        for (Tensor t : outputs) {
            names.add(t.name());
        }
        if (!names.contains(name)) {
            throw new IllegalArgumentException(
                    "the model has no output `" + name + "`; it has " + String.join(", ", names));
        }
        return names.indexOf(name);
    }

    /** What the model takes, in order. */
    @NotNull
    public List<Tensor> inputs() {
        return inputs;
    }

    /** What the model gives, in order. */
    @NotNull
    public List<Tensor> outputs() {
        return outputs;
    }

    /** Float input, float output. */
    @NotNull
    public float[] predict(@NotNull float[] input) {
        return (float[]) predict(input, false, false);
    }

    /** Quant8 input, float output. */
    @NotNull
    public float[] predict(@NotNull byte[] input) {
        return (float[]) predict(input, true, false);
    }

    /** Float input, quant8 output. */
    @NotNull
    public byte[] predict_quant8(@NotNull float[] input) {
        return (byte[]) predict(input, false, true);
    }

    /** Quant8 input, quant8 output. */
    @NotNull
    public byte[] predict_quant8(@NotNull byte[] input) {
        return (byte[]) predict(input, true, true);
    }

    private Object predict(Object input, boolean codesIn, boolean codesOut) {
        Objects.requireNonNull(input, "input");
        return handle.use(h -> Native.predictArray(h, input, codesIn, codesOut, output));
    }

    /** Float input, float output, in direct buffers of native order; see {@link #predict(Buffer[], Buffer[])}. */
    public void predict(@NotNull FloatBuffer input, @NotNull FloatBuffer output) {
        predict(new Buffer[] {input}, new Buffer[] {output});
    }

    /** Quant8 input, float output, in direct buffers. */
    public void predict(@NotNull ByteBuffer input, @NotNull FloatBuffer output) {
        predict(new Buffer[] {input}, new Buffer[] {output});
    }

    /** Float input, quant8 output, in direct buffers. */
    public void predict(@NotNull FloatBuffer input, @NotNull ByteBuffer output) {
        predict(new Buffer[] {input}, new Buffer[] {output});
    }

    /** Quant8 input, quant8 output, in direct buffers. */
    public void predict(@NotNull ByteBuffer input, @NotNull ByteBuffer output) {
        predict(new Buffer[] {input}, new Buffer[] {output});
    }

    /**
     * Any number of inputs and outputs, in the model's order. All inputs are FloatBuffers (real numbers)
     * or all are ByteBuffers (codes), likewise all outputs. Each is direct, of native byte order, and
     * holds its tensor from its position to its limit, which stay as they are. No output may share
     * memory with another buffer, and no other thread may write to a buffer meanwhile.
     */
    public void predict(@NotNull Buffer[] inputs, @NotNull Buffer[] outputs) {
        // Copies, so that what another thread puts into the arrays does not get past the checks.
        Buffer[] from = inputs.clone();
        Buffer[] to = outputs.clone();
        int[] places = new int[2 * (from.length + to.length)];
        boolean codesIn = place("input", from, places, 0);
        boolean codesOut = place("output", to, places, 2 * from.length);
        handle.use(h -> {
            Native.predictBuffers(h, from, to, places, codesIn, codesOut);
            return null;
        });
    }

    /** Whether the buffers hold codes; where they begin and end goes to places. */
    private static boolean place(String what, Buffer[] buffers, int[] places, int from) {
        boolean codes = buffers.length > 0 && buffers[0] instanceof ByteBuffer;
        for (int i = 0; i < buffers.length; i++) {
            Buffer buffer = Objects.requireNonNull(buffers[i], what);
            ByteOrder order = ByteOrder.nativeOrder();
            if (buffer instanceof FloatBuffer) {
                order = ((FloatBuffer) buffer).order();
            } else if (!(buffer instanceof ByteBuffer)) {
                throw new IllegalArgumentException(what + " " + i + " is no FloatBuffer or ByteBuffer");
            }
            if (codes != buffer instanceof ByteBuffer) {
                throw new IllegalArgumentException("the " + what + "s are of different types");
            }
            if (!buffer.isDirect()) {
                throw new IllegalArgumentException(
                        what + " " + i + " is not direct; use ByteBuffer.allocateDirect, or arrays");
            }
            if (order != ByteOrder.nativeOrder()) {
                throw new IllegalArgumentException(
                        what + " " + i + " has " + order + " order; use order(ByteOrder.nativeOrder())");
            }
            if (what.equals("output") && buffer.isReadOnly()) {
                throw new IllegalArgumentException(what + " " + i + " is read-only");
            }
            places[from + 2 * i] = buffer.position();
            places[from + 2 * i + 1] = buffer.remaining();
        }
        return codes;
    }

    /** Gives the model's memory back, once calls that use it are done. Closing again does nothing. */
    @Override
    public void close() {
        handle.close();
    }
}

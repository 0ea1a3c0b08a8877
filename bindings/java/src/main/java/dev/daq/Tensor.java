package dev.daq;

import java.util.Arrays;
import org.jetbrains.annotations.NotNull;

/** An input or output of a model. */
public final class Tensor {
    /** The type in which a model holds a tensor. */
    public enum Type {
        /** 32-bit float. */
        F32,
        /** Unsigned byte. */
        U8,
        /** Signed byte. */
        I8,
        /** 32-bit integer. */
        I32,
        /** 64-bit integer. */
        I64,
        /** A byte that is 0 or 1. */
        BOOL
    }

    /** The order of the elements. */
    public enum Layout {
        /** Batch, channels, rows, columns. */
        PLAIN,
        /** Batch, rows, columns, channels. */
        CHANNELS_LAST
    }

    private final String name;
    private final Type type;
    private final Layout layout;
    private final int[] shape;
    private final boolean quantized;
    private final float scale;
    private final int zeroPoint;

    Tensor(long handle, boolean output, int index) {
        name = Native.name(handle, output, index);
        int[] all = Native.describe(handle, output, index);
        type = Type.values()[all[0]];
        layout = Layout.values()[all[1]];
        quantized = all[2] != 0;
        zeroPoint = all[3];
        shape = Arrays.copyOfRange(all, 4, all.length);
        scale = Native.scale(handle, output, index);
    }

    /** Its name. */
    @NotNull
    public String name() {
        return name;
    }

    /** The type in which the model holds it; callers use float or codes where it is one of these and quantized. */
    @NotNull
    public Type type() {
        return type;
    }

    /** The order of the elements. */
    @NotNull
    public Layout layout() {
        return layout;
    }

    /** The dimensions, outermost first, in the order of the layout. */
    @NotNull
    public int[] shape() {
        return shape.clone();
    }

    /** The number of elements: the product of the dimensions. */
    public int elements() {
        int n = 1;
        for (int d : shape) {
            n = Math.multiplyExact(n, d);
        }
        return n;
    }

    /** Whether it has a scale: real = (code - zeroPoint) * scale. */
    public boolean quantized() {
        return quantized;
    }

    /** The scale; 0 where it is not quantized. */
    public float scale() {
        return scale;
    }

    /** The code of 0, from 0 to 255; 0 where it is not quantized. */
    public int zeroPoint() {
        return zeroPoint;
    }

    @Override
    public String toString() {
        String codes = quantized ? ", scale " + scale + ", zero point " + zeroPoint : "";
        return name + " " + type + " " + Arrays.toString(shape) + " " + layout + codes;
    }
}

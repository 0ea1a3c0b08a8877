package dev.daq;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.RandomAccessFile;
import java.nio.Buffer;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.FloatBuffer;
import java.nio.file.DirectoryStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.Paths;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Random;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.function.Executable;

/** The project's example; MODEL names it, made by the daq command. */
class ModelTest {
    private static final Path FILE = Paths.get(System.getenv("MODEL"));
    private static final int PIXELS = 3 * 48 * 192;

    private Model model;

    @BeforeEach
    void open() {
        model = new ModelBuilder().readFile(FILE.toString()).threads(2).compile();
    }

    @AfterEach
    void close() {
        model.close();
    }

    private static byte[] codes(long seed) {
        byte[] codes = new byte[PIXELS];
        new Random(seed).nextBytes(codes);
        return codes;
    }

    private static float[] real(byte[] codes, Tensor t) {
        float[] real = new float[codes.length];
        for (int i = 0; i < codes.length; i++) {
            real[i] = ((codes[i] & 0xff) - t.zeroPoint()) * t.scale();
        }
        return real;
    }

    private static ByteBuffer direct(byte[] bytes) {
        ByteBuffer buffer = ByteBuffer.allocateDirect(bytes.length);
        buffer.duplicate().put(bytes);
        return buffer;
    }

    private static FloatBuffer direct(float[] real) {
        FloatBuffer buffer = floats(real.length);
        buffer.duplicate().put(real);
        return buffer;
    }

    private static FloatBuffer floats(int n) {
        return ByteBuffer.allocateDirect(4 * n).order(ByteOrder.nativeOrder()).asFloatBuffer();
    }

    private static void fails(Class<? extends Throwable> type, String text, Executable call) {
        String message = assertThrows(type, call).getMessage();
        assertTrue(message.contains(text), message);
    }

    @Test
    void tensors() {
        Tensor x = model.inputs().get(0);
        assertEquals("x", x.name());
        assertArrayEquals(new int[] {1, 3, 48, 192}, x.shape());
        assertEquals(PIXELS, x.elements());
        assertEquals(Tensor.Type.U8, x.type());
        assertEquals(Tensor.Layout.PLAIN, x.layout());
        assertTrue(x.quantized() && Math.abs(x.scale() - 2 / 255f) < 1e-4);
        assertTrue(Math.abs(x.zeroPoint() - 127) <= 1);
        assertArrayEquals(new int[] {1, 2}, model.outputs().get(0).shape());
        assertTrue(x.toString().startsWith("x U8 [1, 3, 48, 192] PLAIN, scale 0.00"), x.toString());
    }

    @Test
    void fourPredictsAgree() {
        Tensor x = model.inputs().get(0);
        Tensor y = model.outputs().get(0);
        for (long seed = 0; seed < 3; seed++) {
            byte[] in = codes(seed);
            byte[] out = model.predict_quant8(in);
            float[] real = real(out, y);
            assertEquals(1, real[0] + real[1], 2 * y.scale());
            assertArrayEquals(out, model.predict_quant8(real(in, x)));
            assertArrayEquals(real, model.predict(in));
            assertArrayEquals(real, model.predict(real(in, x)));
        }
    }

    @Test
    void directBuffersGiveWhatArraysGive() {
        byte[] in = codes(1);
        float[] realIn = real(in, model.inputs().get(0));
        byte[] out = model.predict_quant8(in);
        float[] realOut = model.predict(in);
        ByteBuffer codes = ByteBuffer.allocateDirect(2);
        FloatBuffer real = floats(2);

        model.predict(direct(in), codes);
        assertEquals(ByteBuffer.wrap(out), codes);
        model.predict(direct(realIn), real);
        assertEquals(FloatBuffer.wrap(realOut), real);
        codes.put(0, (byte) 0).put(1, (byte) 0);
        real.put(0, 0).put(1, 0);
        model.predict(direct(realIn), codes);
        assertEquals(ByteBuffer.wrap(out), codes);
        model.predict(direct(in), real);
        assertEquals(FloatBuffer.wrap(realOut), real);

        // From position to limit, read-only inputs too.
        ByteBuffer wide = ByteBuffer.allocateDirect(PIXELS + 9);
        ((Buffer) wide).position(5);
        wide.duplicate().put(in);
        ((Buffer) wide).limit(5 + PIXELS);
        FloatBuffer some = floats(7);
        ((Buffer) some).position(3).limit(5);
        model.predict(wide.asReadOnlyBuffer(), some);
        assertEquals(FloatBuffer.wrap(realOut), some);
        assertEquals(0, some.get(2) + some.duplicate().clear().capacity() - 7);
    }

    @Test
    void wrongCalls() {
        Class<IllegalArgumentException> wrong = IllegalArgumentException.class;
        fails(wrong, "input `x` has 5 elements", () -> model.predict(new float[5]));
        fails(wrong, "input `x` has 0 elements", () -> model.predict_quant8(new byte[0]));
        fails(NullPointerException.class, "input", () -> model.predict((float[]) null));
        ByteBuffer in = ByteBuffer.allocateDirect(PIXELS);
        FloatBuffer out = floats(2);
        fails(wrong, "output `", () -> model.predict(in, floats(3)));
        fails(wrong, "is not direct", () -> model.predict(ByteBuffer.allocate(PIXELS), out));
        fails(wrong, "read-only", () -> model.predict(in, out.asReadOnlyBuffer()));
        FloatBuffer swapped = ByteBuffer.allocateDirect(8).order(ByteOrder.BIG_ENDIAN).asFloatBuffer();
        FloatBuffer little = ByteBuffer.allocateDirect(8).order(ByteOrder.LITTLE_ENDIAN).asFloatBuffer();
        boolean bigIsNative = ByteOrder.nativeOrder() == ByteOrder.BIG_ENDIAN;
        fails(wrong, "order", () -> model.predict(in, bigIsNative ? little : swapped));
        fails(wrong, "overlaps", () -> {
            ByteBuffer half = in.duplicate();
            ((Buffer) half).limit(2);
            model.predict(in, half);
        });
        Buffer[] one = {in};
        fails(wrong, "2 inputs given", () -> model.predict(new Buffer[] {in, in}, new Buffer[] {out}));
        fails(wrong, "different types", () -> model.predict(one, new Buffer[] {out, in}));
        fails(wrong, "0 outputs given", () -> model.predict(one, new Buffer[0]));
        fails(NullPointerException.class, "input", () -> model.predict(new Buffer[1], one));
        fails(wrong, "no FloatBuffer", () -> model.predict(one, new Buffer[] {in.asIntBuffer()}));
        ByteBuffer odd = ByteBuffer.allocateDirect(9).order(ByteOrder.nativeOrder());
        ((Buffer) odd).position(1);
        FloatBuffer misaligned = odd.slice().order(ByteOrder.nativeOrder()).asFloatBuffer();
        fails(wrong, "not aligned", () -> model.predict(in, misaligned));
    }

    @Test
    void wrongModels() throws Exception {
        byte[] whole = Files.readAllBytes(FILE);
        ModelBuilder builder = new ModelBuilder();
        fails(IllegalStateException.class, "readFile", builder::compile);
        fails(DaqException.class, "none.daq", () -> builder.readFile("none.daq").compile());
        fails(DaqException.class, "", () -> builder.readBuffer(new byte[0]).compile());
        byte[] cut = Arrays.copyOf(whole, whole.length - 1);
        fails(DaqException.class, "cut short", () -> builder.readBuffer(cut).compile());
        byte[] garbage = new byte[1000];
        new Random(1).nextBytes(garbage);
        fails(DaqException.class, "model", () -> builder.readBuffer(garbage).compile());
        builder.readBuffer(ByteBuffer.wrap(whole));
        fails(IllegalArgumentException.class, "1 to 256", () -> builder.threads(0).compile());
        builder.threads(1);
        fails(IllegalArgumentException.class, "preference 7", () -> builder.compile(7));
        fails(IllegalArgumentException.class, "no output `y`", () -> builder.setOutput("y").compile());
        fails(NullPointerException.class, "path", () -> builder.readFile((String) null));
        fails(DaqException.class, "", () -> builder.readFileDescriptor(987, 0, 10).compile());
        fails(
                IllegalArgumentException.class,
                "negative",
                () -> builder.readFileDescriptor(-1, 0, 10).compile());
        ModelBuilder nnapi = new ModelBuilder().readFile(FILE.toFile()).backend(ModelBuilder.Backend.NNAPI);
        fails(IllegalArgumentException.class, "built without NNAPI", nnapi::compile);
    }

    @Test
    void everyWayToOpen() throws Exception {
        byte[] whole = Files.readAllBytes(FILE);
        byte[] in = codes(3);
        byte[] expected = model.predict_quant8(in);
        String output = model.outputs().get(0).name();
        ModelBuilder builder = new ModelBuilder().readBuffer(whole).setOutput(output).allowFp16(true);
        try (Model other = builder.compile(ModelBuilder.PREFERENCE_LOW_POWER)) {
            assertArrayEquals(expected, other.predict_quant8(in));
        }
        Path packed = Files.createTempFile("daq", ".bin");
        ByteBuffer content = ByteBuffer.allocate(whole.length + 200);
        ((Buffer) content).position(100);
        Files.write(packed, content.put(whole).array());
        try (RandomAccessFile file = new RandomAccessFile(packed.toFile(), "r")) {
            int fd = descriptor(packed);
            assertTrue(file.length() > whole.length);
            try (Model other = builder.readFileDescriptor(fd, 100, whole.length).compile()) {
                assertArrayEquals(expected, other.predict_quant8(in));
            }
        }
        Files.delete(packed);
    }

    /** The number of an open file, as Linux tells it. */
    private static int descriptor(Path file) throws Exception {
        try (DirectoryStream<Path> all = Files.newDirectoryStream(Paths.get("/proc/self/fd"))) {
            for (Path fd : all) {
                if (Files.isSymbolicLink(fd) && Files.exists(fd) && Files.isSameFile(fd, file)) {
                    return Integer.parseInt(fd.getFileName().toString());
                }
            }
        }
        throw new AssertionError(file + " is not open");
    }

    @Test
    void closedModels() {
        model.close();
        model.close();
        fails(IllegalStateException.class, "closed", () -> model.predict(codes(0)));
        fails(
                IllegalStateException.class,
                "closed",
                () -> model.predict(ByteBuffer.allocateDirect(PIXELS), floats(2)));
        assertEquals(1, model.inputs().size());
    }

    @Test
    void collectedModelsAreClosed() throws Exception {
        int before = Handle.open();
        for (int i = 0; i < 20; i++) {
            new ModelBuilder().readFile(FILE.toFile()).compile();
        }
        long end = System.nanoTime() + 20_000_000_000L;
        while (Handle.open() > before && System.nanoTime() < end) {
            System.gc();
            Thread.sleep(20);
        }
        assertEquals(before, Handle.open());
    }

    /** 8 threads on one model for DAQ_TEST_SECONDS (1), and models that are closed while others use them. */
    @Test
    void manyThreads() throws Exception {
        String given = System.getenv("DAQ_TEST_SECONDS");
        long seconds = given == null ? 1 : Long.parseLong(given);
        long end = System.nanoTime() + seconds * 1_000_000_000L;
        ExecutorService threads = Executors.newFixedThreadPool(8);
        List<Future<Integer>> runs = new ArrayList<>();
        Model shared = new ModelBuilder().readFile(FILE.toString()).compile();
        for (int i = 0; i < 8; i++) {
            byte[] in = codes(i);
            byte[] expected = model.predict_quant8(in);
            boolean closes = i == 7;
            Callable<Integer> work = () -> {
                int count = 0;
                ByteBuffer buffer = direct(in);
                ByteBuffer out = ByteBuffer.allocateDirect(2);
                while (System.nanoTime() < end) {
                    assertArrayEquals(expected, model.predict_quant8(in));
                    model.predict(buffer, out);
                    assertEquals(ByteBuffer.wrap(expected), out);
                    count += 2;
                    try {
                        assertArrayEquals(expected, shared.predict_quant8(in));
                    } catch (IllegalStateException e) {
                        assertEquals("the model is closed", e.getMessage());
                    }
                    if (closes && count == 10) {
                        shared.close();
                    }
                }
                return count;
            };
            runs.add(threads.submit(work));
        }
        int total = 0;
        for (Future<Integer> run : runs) {
            total += run.get();
        }
        threads.shutdown();
        assertTrue(total >= 16, total + " runs");
    }
}

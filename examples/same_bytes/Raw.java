// Raw MODEL.daq f32|u8 f32|u8 INPUT OUTPUT [RUNS [direct]]: predicts on a file of raw elements; with RUNS as
// many times, and prints the least microseconds that one took. Arrays, or direct buffers.
import dev.daq.Model;
import dev.daq.ModelBuilder;
import java.nio.Buffer;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.file.Files;
import java.nio.file.Paths;

class Raw {
    public static void main(String[] args) throws Exception {
        byte[] in = Files.readAllBytes(Paths.get(args[3]));
        boolean codesIn = args[1].equals("u8");
        boolean codesOut = args[2].equals("u8");
        int runs = args.length > 5 ? Integer.parseInt(args[5]) : 1;
        boolean direct = args.length > 6;
        try (Model model = new ModelBuilder().readFile(args[0]).compile()) {
            int size = model.outputs().get(0).elements() * (codesOut ? 1 : 4);
            ByteBuffer out = ByteBuffer.allocateDirect(size).order(ByteOrder.nativeOrder());
            ByteBuffer given = ByteBuffer.allocateDirect(in.length).order(ByteOrder.nativeOrder());
            given.duplicate().put(in);
            Buffer[] inputs = {codesIn ? given : given.asFloatBuffer()};
            Buffer[] outputs = {codesOut ? out : out.asFloatBuffer()};
            float[] real = new float[in.length / 4];
            given.asFloatBuffer().get(real);

            long least = Long.MAX_VALUE;
            Object made = null;
            for (int i = 0; i < runs; i++) {
                long start = System.nanoTime();
                if (direct) {
                    model.predict(inputs, outputs);
                } else if (codesOut) {
                    made = codesIn ? model.predict_quant8(in) : model.predict_quant8(real);
                } else {
                    made = codesIn ? model.predict(in) : model.predict(real);
                }
                least = Math.min(least, System.nanoTime() - start);
            }
            if (args.length > 5) {
                System.out.println(least / 1000.0);
            }
            if (made instanceof byte[]) {
                out.duplicate().put((byte[]) made);
            } else if (made != null) {
                out.asFloatBuffer().put((float[]) made);
            }
            byte[] bytes = new byte[size];
            out.duplicate().get(bytes);
            Files.write(Paths.get(args[4]), bytes);
        }
    }
}

// Which way up is a line of text? Main MODEL.daq FRAME.ppm, a frame of 192 x 48 pixels as a camera gives.
import dev.daq.Model;
import dev.daq.ModelBuilder;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Paths;
import java.util.Locale;

class Main {
    private static final int PIXELS = 48 * 192;
    private static final String HEADER = "P6\n192 48\n255\n";

    public static void main(String[] args) throws Exception {
        byte[] file = Files.readAllBytes(Paths.get(args[1]));
        int start = HEADER.length();
        if (file.length != start + 3 * PIXELS
                || !new String(file, 0, start, StandardCharsets.US_ASCII).equals(HEADER)) {
            throw new IllegalArgumentException("the frame is no binary PPM of 192 x 48 pixels");
        }
        // As the model was trained: planes of blue, green and red from -1 to 1.
        float[] input = new float[3 * PIXELS];
        for (int c = 0; c < 3; c++) {
            for (int p = 0; p < PIXELS; p++) {
                input[c * PIXELS + p] = ((file[start + 3 * p + 2 - c] & 0xff) - 127.5f) / 127.5f;
            }
        }
        try (Model model = new ModelBuilder()
                .readFile(args[0])
                .compile(ModelBuilder.PREFERENCE_FAST_SINGLE_ANSWER)) {
            float[] scores = model.predict(input);
            int best = scores[1] > scores[0] ? 1 : 0;
            System.out.printf(Locale.ROOT, "%s degrees, %.4f%n", best == 1 ? "180" : "0", scores[best]);
        }
    }
}

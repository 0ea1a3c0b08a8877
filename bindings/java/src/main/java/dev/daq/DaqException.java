package dev.daq;

/** A model that cannot be used: no such file, damaged, cut short, made by a newer daq. */
public class DaqException extends RuntimeException {
    private static final long serialVersionUID = 1L;

    /** What was wrong, and what to do. */
    public DaqException(String message) {
        super(message);
    }
}

/** A step's own finding. */
final class Failed extends RuntimeException {
    private static final long serialVersionUID = 1;

    Failed(String why) {
        super(why);
    }

    static void unless(boolean holds, String otherwise) {
        if (!holds) {
            throw new Failed(otherwise);
        }
    }
}

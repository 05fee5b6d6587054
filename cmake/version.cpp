/// Gives libtroupe.so a source of its own; everything else in it comes from the folders.
extern "C" const char* troupe_version() { return "0.1.0"; }

// What the kernels for a panel of a product share: how rows are divided into tiles, and how far ahead weights are
// prefetched. Included inside an instruction set's namespace.

// `num_rows` (at least one) in as few tiles of at most `most` rows as possible, and these as equal as possible: 10 rows
// are 5 and 5, not 6, 3 and 1. Each tile reads the weights of its group again.
struct Tiles {
  int64_t height;    // rows of the first tiles; the others have one less
  int64_t num_high;  // tiles of that height
  int64_t num_low;

  Tiles(int64_t num_rows, int64_t most) {
    const int64_t num_tiles = (num_rows + most - 1) / most;
    height = (num_rows + num_tiles - 1) / num_tiles;
    num_low = num_tiles * height - num_rows;
    num_high = num_tiles - num_low;
  }
};

// With few rows, and in attention, a kernel waits for memory, and needs more data on its way into the second-level
// cache at once. With many rows it waits for its products, and needs the next lines in the first-level cache.
struct Prefetch {
  bool far;
  int64_t groups;  // ahead of a group
  int64_t bytes;   // ahead of its codes

  Prefetch(const PackedView& matrix, int64_t num_rows) {
    constexpr int64_t kFarGroups = 16, kNearGroups = 4;
    far = num_rows <= 4 || matrix.ahead;
    groups = far ? kFarGroups : kNearGroups;
    bytes = matrix.ahead ? matrix.ahead : groups * group_code_bytes(matrix.format);
  }
};

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

// How far ahead of a group its panel's weights are prefetched. The first-level cache can wait for few lines at once,
// too few to read memory at its full rate. So weights are prefetched into the second-level cache, early. With more than
// a few rows, they are also prefetched from there into the first-level cache, shortly before they are used: products
// then take most of the time, and would wait for each line.
struct Prefetch {
  static constexpr int64_t kFarGroups = 16, kNearGroups = 4;
  bool is_near;        // whether lines are prefetched into the first-level cache too
  int64_t far_bytes;   // from a group's codes to those that are prefetched into the second-level cache
  int64_t near_bytes;  // and into the first-level cache

  Prefetch(const PackedView& matrix, int64_t num_rows)
      : is_near(num_rows > 4),
        far_bytes(kFarGroups * group_code_bytes(matrix.format)),
        near_bytes(kNearGroups * group_code_bytes(matrix.format)) {}
};

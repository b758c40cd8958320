"""`torchrun -m clipvip.pipeline.train RECIPE ...`: `clipvip-train` in each of several processes."""

from clipvip.pipeline.train.command import main

if __name__ == "__main__":
    main()

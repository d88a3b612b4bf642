"""Trains the M3 demo model; trainer.py explains the options and does the work.

  python train_m3.py --graphs --tokenizer ../../models/demo-m3 --state FOLDER --seconds 720 --planned 700 --tokens 32768
"""

import trainer
from families import M3

if __name__ == "__main__":
    trainer.main(M3())

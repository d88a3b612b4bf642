"""Trains the M2 demo model; trainer.py explains the options and does the work.

  python train_m2.py --graphs --tokenizer ../../models/demo-m2 --state FOLDER --seconds 720 --planned 700 --tokens 32768
"""

import trainer
from families import M2

if __name__ == "__main__":
    trainer.main(M2())

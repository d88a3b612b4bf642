"""Trains the M3 demo model; trainer.py explains the options and does the work.

  python train_m3.py --compile --graphs --tokens 61440 --tokenizer ../../models/demo-m3 --state FOLDER --seconds 1250 --planned 1150
"""

import trainer
from families import M3

if __name__ == "__main__":
    trainer.main(M3())

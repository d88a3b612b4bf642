"""Trains the M2 demo model; trainer.py explains the options and does the work.

  python train_m2.py --compile --graphs --tokens 65536 --tokenizer ../../models/demo-m2 --state FOLDER --seconds 650 --planned 550
"""

import trainer
from families import M2

if __name__ == "__main__":
    trainer.main(M2())

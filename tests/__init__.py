import trio_kprod as trio_kprod  # before any test imports kafka-python: this import silences its warnings

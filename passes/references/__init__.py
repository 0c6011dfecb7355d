"""What the passes that bind references share, each file building on those before it.

binding: what was given.  fixed: what follows from it alone, and its values.  folding: these as constants.
axes: where references are in a value.  rematerialize: what to compute again instead of storing it.
partition: what is computed when.  plan: how many references at a time.  loop: the partition with its plan.
stored: what the loop reads.  emit: the program.
"""

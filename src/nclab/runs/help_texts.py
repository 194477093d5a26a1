"""What `nclab-runs --help` and `nclab-runs COMMAND --help` say."""

DOC = """What became of the runs in these folders (run folders, experiment folders or output roots; default: outputs).

  nclab-runs status                                 how far they are; with many runs a row an experiment
  nclab-runs status --state failed,running          a row a run
  nclab-runs failed                                 why runs failed or stopped, and the command that resumes each
  nclab-runs show RUN                               its curves, as lines of text
  nclab-runs diff RUN RUN                           keys and last numbers in which two runs differ
  nclab-runs board outputs --out board.html         a page for a browser: table with filters, curves by layer and epoch
  nclab-runs export outputs/figure1 --out f.parquet all measurements as one table
  nclab-runs pack outputs/figure1 --out f.tar.xz    all of finished runs but their weights, to commit or to send
  nclab-runs clean --state failed                   remove failed runs, after asking
  nclab-runs clean --checkpoints                    remove the checkpoints of finished runs

It changes no run, but for clean, and may be used while runs are trained."""

STATUS = """done         finished
running      a process writes it; ETA by its last ten epochs, with "no event for ..." if it looks stuck
queued       Slurm has its job, but it does not run (yet, or again after a requeue)
submitted    it was submitted to Slurm, which cannot be asked here
interrupted  none of these: stopped by a signal, killed, or its job went away; the same command resumes it
failed       it said so: diverged, full disk, ...; the same command tries again from the last checkpoint
unreadable   its files cannot be read"""

FAILED = "Exit code: 0 if there is none, 1 if there are any (as grep the other way round), 2 for wrong input."

CLEAN = """Lists what it would remove with its size, asks, and removes each run, its lock held, if it still is what it
was. Running, queued and submitted runs are never removed; below the folders named no symbolic link is followed.
A run that was killed on another machine is left alone for ten minutes, or five of its epochs: not every network file
system shows its lock. Without its checkpoint a finished run still makes all figures and tables; its weights are gone.

Exit code: 0 all removed, or nothing to remove; 1 something was kept, or the answer was no; 2 wrong input, or nobody to
ask (no terminal, no --yes)."""

SHOW = "A curve of positive numbers that spans more than a decade is drawn by their logarithm (scale: log)."

DIFF = "Numbers are those of the last epoch that has them. `-`: the run has no such key or number."

EXPORT = """One row a measurement: run, experiment, seed, policy, finished, the settings that vary among the runs (as
etf.k; empty where one means nothing), then epoch, split, layer, metric, value as in metrics.csv."""

BOARD = """One file that needs neither a server nor a network; the runs are only read. A file that this command did not
make is not written over. Curves keep four digits and at most 60 epochs a run. Three classes in their plane are shown of
runs that were trained with metrics.suite=[collapse,projection]. A page of --watch loads itself again; a run whose log
is broken is named in it. Needs the extra board (plotly).

Exit code: 0 written; 2 refused, or no run there."""

PACK = """Holds EXPERIMENT/RUN/ with config.yaml, metrics.csv, events.jsonl, summary.json and DONE of each run; no
checkpoints. Names of machines, users, processes and accounts are left out, and of every absolute path all but its last
part. The same runs give the same bytes. `tar -xf FILE.tar.xz -C outputs` unpacks it: drawing and judging read its runs
as their own, and training skips them. Nothing is written if a run is unfinished or may still change, lacks a file or
holds a symbolic link.

Exit code: 0 written; 2 refused."""

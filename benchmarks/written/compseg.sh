# What one writes with compseg: `sh compseg.sh labels.csv out epochs`.
python -m compseg.prepare source=images source.manifest="$1" out="$2.zarr"
python -m compseg.train data=cohort data.path="$2.zarr" hydra.run.dir="$2" trainer.max_epochs="$3" trainer.accelerator=cpu trainer.devices=1

# FGVC-Aircraft, 6,667 + 3,333 images, https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft/
_base_ = './cub.py'
dataset_type = 'FGVCAircraft'
data_root = 'data/fgvc-aircraft-2013b'
data_preprocessor = dict(num_classes=100)
train_dataloader = dict(dataset=dict(type=dataset_type, data_root=data_root, split='trainval'))
val_dataloader = dict(dataset=dict(type=dataset_type, data_root=data_root))
test_dataloader = val_dataloader

# Stanford Cars, 8,144 + 8,041 images, https://ai.stanford.edu/~jkrause/cars/car_dataset.html
# Its annotations are read by mat4py (pip install mat4py).
_base_ = './cub.py'
dataset_type = 'StanfordCars'
data_root = 'data/Stanford_Cars'
data_preprocessor = dict(num_classes=196)
train_dataloader = dict(dataset=dict(type=dataset_type, data_root=data_root, split='train'))
val_dataloader = dict(dataset=dict(type=dataset_type, data_root=data_root))
test_dataloader = val_dataloader

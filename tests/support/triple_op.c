/* An operation of an operator's own, for the tests of --op-library: three times its input, float32.
 *
 * The prototypes are those of tensorflow/c/ops.h, kernels.h and tf_tensor.h, whose symbols libtensorflow_framework has.
 */
#include <stddef.h>
#include <stdint.h>

typedef struct TF_OpDefinitionBuilder TF_OpDefinitionBuilder;
typedef struct TF_KernelBuilder TF_KernelBuilder;
typedef struct TF_OpKernelContext TF_OpKernelContext;
typedef struct TF_ShapeInferenceContext TF_ShapeInferenceContext;
typedef struct TF_Status TF_Status;
typedef struct TF_Tensor TF_Tensor;

extern TF_OpDefinitionBuilder* TF_NewOpDefinitionBuilder(const char* name);
extern void TF_OpDefinitionBuilderAddInput(TF_OpDefinitionBuilder*, const char* spec);
extern void TF_OpDefinitionBuilderAddOutput(TF_OpDefinitionBuilder*, const char* spec);
extern void TF_OpDefinitionBuilderSetShapeInferenceFunction(TF_OpDefinitionBuilder*,
                                                            void (*)(TF_ShapeInferenceContext*, TF_Status*));
extern void TF_ShapeInferenceContextSetUnknownShape(TF_ShapeInferenceContext*, TF_Status*);
extern void TF_RegisterOpDefinition(TF_OpDefinitionBuilder*, TF_Status*);
extern TF_KernelBuilder* TF_NewKernelBuilder(const char* name, const char* device, void* (*create)(void*),
                                             void (*compute)(void*, TF_OpKernelContext*), void (*destroy)(void*));
extern void TF_RegisterKernelBuilder(const char* kernel, TF_KernelBuilder*, TF_Status*);
extern void TF_GetInput(TF_OpKernelContext*, int index, TF_Tensor**, TF_Status*);
extern TF_Tensor* TF_AllocateOutput(TF_OpKernelContext*, int index, int type, const int64_t* axes, int count,
                                    size_t bytes, TF_Status*);
extern TF_Status* TF_NewStatus(void);
extern void TF_DeleteStatus(TF_Status*);
extern void TF_DeleteTensor(TF_Tensor*);
extern int TF_NumDims(const TF_Tensor*);
extern int64_t TF_Dim(const TF_Tensor*, int axis);
extern size_t TF_TensorByteSize(const TF_Tensor*);
extern void* TF_TensorData(const TF_Tensor*);

enum { FLOAT = 1, MOST_AXES = 8 };

static void compute(void* kernel, TF_OpKernelContext* context) {
  TF_Status* status = TF_NewStatus();
  TF_Tensor* input = NULL;
  int64_t axes[MOST_AXES];
  (void)kernel;
  TF_GetInput(context, 0, &input, status);
  int count = TF_NumDims(input);
  for (int axis = 0; axis < count; axis++) axes[axis] = TF_Dim(input, axis);
  size_t bytes = TF_TensorByteSize(input);
  TF_Tensor* output = TF_AllocateOutput(context, 0, FLOAT, axes, count, bytes, status);
  const float* from = TF_TensorData(input);
  float* to = TF_TensorData(output);
  for (size_t place = 0; place < bytes / sizeof(float); place++) to[place] = 3 * from[place];
  TF_DeleteTensor(output);
  TF_DeleteTensor(input);
  TF_DeleteStatus(status);
}

__attribute__((constructor)) static void register_triple(void) {
  TF_Status* status = TF_NewStatus();
  TF_OpDefinitionBuilder* op = TF_NewOpDefinitionBuilder("Triple");
  TF_OpDefinitionBuilderAddInput(op, "x: float");
  TF_OpDefinitionBuilderAddOutput(op, "y: float");
  TF_OpDefinitionBuilderSetShapeInferenceFunction(op, TF_ShapeInferenceContextSetUnknownShape);
  TF_RegisterOpDefinition(op, status);
  TF_RegisterKernelBuilder("Triple", TF_NewKernelBuilder("Triple", "CPU", NULL, compute, NULL), status);
  TF_DeleteStatus(status);
}
